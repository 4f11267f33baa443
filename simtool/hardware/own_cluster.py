"""The cluster of a plan: its text may name devices that only the plan's own profiles know."""

from __future__ import annotations

from collections.abc import Iterable

from simtool.hardware.cluster import Cluster, parse_cluster
from simtool.hardware.own_profiles import load_own_profiles, own_devices
from simtool.plan import ProfileFile


def own_cluster(text: str, profiles: Iterable[ProfileFile]) -> Cluster:
    """The cluster written as `text`, with the catalogue's devices and those that `profiles` measured. InputError."""
    return parse_cluster(text, own_devices(load_own_profiles(profiles)))
