"""Server: the host that devices sit in, its cores and its DRAM (`data/servers.toml`)."""

from __future__ import annotations

from dataclasses import dataclass

from simtool.errors import InputError
from simtool.hardware.device import Device, nearest_names, read_catalogue
from simtool.units import GB, GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One host. cores: physical, all sockets; dram_bytes_per_s: peak of all channels."""

    name: str
    cpu: str
    cores: int
    dram_bytes: float
    dram_bytes_per_s: float
    source: str


def server_names() -> tuple[str, ...]:
    """All catalogue names, sorted."""
    return tuple(sorted(read_catalogue("servers.toml")))


def load_server(name: str) -> Server:
    """The server called `name`, in any case. InputError with the nearest names if unknown."""
    from simtool.hardware.device_file import ServerEntry, validated

    catalogue = read_catalogue("servers.toml")
    key = name.strip().lower().replace("_", "-")
    if key not in catalogue:
        raise InputError(name, "is not in the server catalogue", nearest_names(key, catalogue))
    entry = validated(ServerEntry, catalogue[key], f"servers.toml[{key}]")
    return Server(
        name=key,
        cpu=entry.cpu,
        cores=entry.cores,
        dram_bytes=entry.dram_gib * GIB,
        dram_bytes_per_s=entry.dram_gb_per_s * GB,
        source=entry.source,
    )


def usual_server(device: Device) -> Server:
    """The server that usually hosts `device`."""
    for name, table in read_catalogue("servers.toml").items():
        if device.name in table["devices"]:
            return load_server(name)
    raise InputError(device.name, "has no usual server in the catalogue", "name one of " + ", ".join(server_names()))
