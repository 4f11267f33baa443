"""What a device, link or cluster file may hold, as pydantic shapes."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from simtool.errors import InputError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class About(_Strict):
    """Who made it."""

    vendor: Text
    architecture: Text
    compute_capability: Text
    source: Text


class Compute(_Strict):
    """Dense peak rates in TFLOP/s."""

    fp32_tflops: Positive
    tf32_tflops: Positive | None = None
    fp16_tflops: Positive
    bf16_tflops: Positive | None = None
    fp8_tflops: Positive | None = None
    int8_tflops: Positive | None = None
    fp4_tflops: Positive | None = None
    source: Text


class Memory(_Strict):
    """Device memory and L2 cache."""

    hbm_gib: Positive
    usable_gib: Positive
    hbm_gb_per_s: Positive
    l2_mib: Positive
    source: Text


class Chip(_Strict):
    """Multiprocessors, clock, copy engines."""

    sm_count: Count
    boost_mhz: Positive
    copy_engines: Count
    source: Text


class Power(_Strict):
    """Board power limits."""

    tdp_w: Positive
    idle_w: Positive
    source: Text


class Links(_Strict):
    """What the device is wired with."""

    scale_up: Text
    scale_up_gb_per_s: Positive
    pcie: Text
    per_node: Count
    inter_node: Text
    c2c: str = ""
    source: Text


class Price(_Strict):
    """A dated default price."""

    usd_per_hour: Positive
    date: Text
    source: Text


class DeviceEntry(_Strict):
    """One file of data/devices."""

    about: About
    compute: Compute
    memory: Memory
    chip: Chip
    power: Power
    links: Links
    price: Price | None = None


class LinkEntry(_Strict):
    """One table of links.toml."""

    kind: Literal["nvlink", "pcie", "network", "loopback"]
    reduces: bool = False
    gb_per_s: Positive
    latency_us: Positive
    source: Text


class ServerEntry(_Strict):
    """One table of servers.toml."""

    devices: tuple[Text, ...]
    cpu: Text
    cores: Count
    dram_gib: Positive
    dram_gb_per_s: Positive
    source: Text


class GroupEntry(_Strict):
    """One [[groups]] table of a cluster file; links default to the device's own."""

    device: Text
    nodes: Count = 1
    devices_per_node: Count | None = None
    intra_link: str | None = None
    intra_gb_per_s: Positive | None = None
    intra_latency_us: Positive | None = None
    inter_link: str | None = None
    inter_gb_per_s: Positive | None = None
    inter_latency_us: Positive | None = None
    nics_per_node: Count | None = None


class ClusterEntry(_Strict):
    """A cluster file."""

    groups: Annotated[tuple[GroupEntry, ...], Field(min_length=1)]


Entry = TypeVar("Entry", bound=BaseModel)


def validated(shape: type[Entry], table: Any, where: str) -> Entry:
    """`table` as `shape`; InputError that names every wrong key with its path."""
    try:
        return shape.model_validate(table)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(str(p) for p in e['loc']) or 'file'}: {e['msg']}" for e in error.errors())
        raise InputError(where, problems, "see docs for the keys of this file") from None
