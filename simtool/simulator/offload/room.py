"""Whether host memory holds what a device does not."""

from __future__ import annotations

from simtool.errors import InfeasibleError
from simtool.hardware.device import Device
from simtool.hardware.server import Server, usual_server
from simtool.models.architecture import ModelArchitecture
from simtool.models.offload_memory import expert_bytes
from simtool.models.routing.shape import moe_shape
from simtool.plan import Pool
from simtool.units import GB


def host_of(device: Device) -> Server | None:
    """The server around the device; None for a CPU, which is the host."""
    return None if device.kind == "cpu" else usual_server(device)


def check_host_memory(arch: ModelArchitecture, pool: Pool, device: Device) -> None:
    """Raise InfeasibleError where the experts of one replica do not fit into host memory."""
    server, shape = host_of(device), moe_shape(arch)
    wanted = len(shape.layers) * shape.num_experts * expert_bytes(arch, pool.parallel) * pool.parallel.tp
    room = device.usable_bytes if server is None else server.dram_bytes
    if wanted > room:
        detail = (
            f"the experts of {arch.name} take {wanted / GB:.0f} GB of host memory, and there are {room / GB:.0f} GB"
        )
        raise InfeasibleError("host-memory", detail, "a smaller weight dtype, or no offload")
