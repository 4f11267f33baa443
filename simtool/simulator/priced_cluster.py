"""A cluster as the simulator takes it: each device type with its cost model, and what the host adds."""

from __future__ import annotations

from collections.abc import Sequence

from simtool.hardware.cluster import Cluster
from simtool.hardware.fitted import load_cost_model
from simtool.hardware.own_profiles import load_own_profiles
from simtool.plan import ProfileFile
from simtool.simulator.host import HostOverhead, load_host
from simtool.simulator.step_costs import StageHardware


def priced_cluster(
    cluster: Cluster, library: str, profiles: Sequence[ProfileFile] = ()
) -> tuple[dict[str, StageHardware], HostOverhead]:
    """Device name -> device, cost model and node size, for every device type; and the host's overhead.

    profiles: the user's own. InputError for a missing or changed one, and for an unknown library.
    """
    own = load_own_profiles(profiles)
    groups = {name: cluster.group_of(name) for name in cluster.devices_by_type}
    hardware = {
        name: StageHardware(
            device=group.device,
            cost_model=load_cost_model(group.device, group, library, own),
            devices_per_node=group.devices_per_node,
        )
        for name, group in groups.items()
    }
    cpus = [name for name, group in groups.items() if group.device.kind == "cpu"]
    silent = cpus if len(cpus) < len(groups) else []  # a GPU beside them is launched on, and idles
    return hardware, load_host(library, [p for p in own if p.device in groups and p.device not in silent])
