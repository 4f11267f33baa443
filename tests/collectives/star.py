"""Small topologies to check by hand."""

from simtool.hardware.fabric import wide_area_topology
from simtool.hardware.routes import Router
from simtool.hardware.topology import DirectedLink, Topology, check_topology


def star(count: int, rate: float = 1e9, latency_s: float = 1e-6, reduces: bool = True) -> Router:
    """Devices on one switch: `rate` bytes/s each way; the latency is on the way there."""
    links = [
        DirectedLink(name=name, source=a, target=b, bytes_per_s=rate, latency_s=seconds)
        for i in range(count)
        for name, a, b, seconds in ((f"up{i}", f"d{i}", "s", latency_s), (f"down{i}", "s", f"d{i}", 0.0))
    ]
    devices = tuple(f"d{i}" for i in range(count))
    switches = frozenset({"s"}) if reduces else frozenset()
    return Router(
        topology=check_topology(Topology(devices=devices, hosts=(0,) * count, links=tuple(links), reducing=switches))
    )


def mesh(rates, latency_s=0.0) -> Router:
    """Peers that are joined pairwise."""
    return Router(topology=wide_area_topology(rates, latency_s))
