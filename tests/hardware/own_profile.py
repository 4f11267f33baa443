"""A small profile of a made-up calibration, for tests: a law without noise, in the families asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from simtool.calibration.collective_samples import Samples
from simtool.calibration.fit_profile import fit_set, profile_table, write_profile
from simtool.calibration.measured_set import HostTime, MeasuredSet
from simtool.calibration.measurements import Measurements
from simtool.hardware.fitted_work import FAMILY_TERMS
from simtool.hardware.roofline import RooflineLaw

PEAK, BANDWIDTH = 989.4e12, 4.8e12  # an H200
LAW = RooflineLaw(launch_s=4e-6, compute_efficiency=0.7, memory_efficiency=0.8, exponent=1.8)
GQA = {"heads": 32.0, "kv_heads": 8.0, "head_dim": 128.0, "window": 0.0}
CPU_MACHINE = {"device_kind": "cpu", "device_label": "A CPU", "device_memory_bytes": 16e9, "device_count": 4.0}
CPU_MACHINE |= {"device_units": 1.0, "device_cache_bytes": 32e6}
GPU_MACHINE = {"device_kind": "gpu", "device_label": "GTX 1080 Ti", "device_memory_bytes": 11e9, "device_count": 2.0}
GPU_MACHINE |= {
    "device_units": 28.0,
    "device_cache_bytes": 2.75e6,
    "device_clock_hz": 1.6e9,
    "device_capability": "6.1",
}
AXES = {
    "gemm": {"m": 4.0 ** np.arange(7), "n": np.array([1024.0, 28672.0]), "k": np.array([4096.0, 14336.0])},
    "attention_decode": {"batch": 4.0 ** np.arange(5), "kv_len": 8.0 ** np.arange(1, 6)},
    "elementwise": {"bytes": 4.0 ** np.arange(5, 15)},
    "sampling": {"bytes": 4.0 ** np.arange(8, 15)},
}


def rows(family: str, dtype: str, slower: float) -> Measurements:
    axes = AXES[family]
    columns = np.meshgrid(*axes.values(), indexing="ij")
    dims = {name: column.ravel() for name, column in zip(axes, columns, strict=True)}
    if family == "attention_decode":
        dims |= {name: np.full(len(dims["batch"]), value) for name, value in GQA.items()}
    if family == "elementwise":
        dims["kind"] = np.zeros(len(dims["bytes"]))
    seconds = slower * LAW.seconds(FAMILY_TERMS[family].work(dims, dtype), PEAK, BANDWIDTH)
    lines = np.arange(len(seconds))
    return Measurements(
        family=family, dtype=dtype, dims=dims, seconds=seconds, lines=lines, table="made up", kernels=("law",)
    )


def skewed(equal: Measurements, skew: float) -> Measurements:
    """Batches of unequal lengths that take `skew` of the way from the mean length's time to that of 4 x the mean."""
    longest = 4 * equal.dims["kv_len"]
    work = FAMILY_TERMS["attention_decode"].work({**equal.dims, "kv_len": longest}, equal.dtype)
    seconds = equal.seconds + skew * (LAW.seconds(work, PEAK, BANDWIDTH) - equal.seconds)
    return replace(equal, dims={**equal.dims, "kv_max": longest}, seconds=seconds)


def all_reduces(seconds_per_byte: float, ranks: int, library: str = "nccl") -> Samples:
    size = 4.0 ** np.arange(6, 15)
    seconds = 10e-6 + seconds_per_byte * size
    return Samples(kind="all_reduce", library=library, ranks=ranks, size_bytes=size, seconds=seconds, source="made up")


def write_small(
    path: Path,
    *,
    device: str = "h200",
    library: str = "vllm",
    families: Sequence[str] = ("gemm",),
    dtype: str = "bf16",
    slower: float = 1.0,
    skew: float = 0.0,
    collectives: Sequence[Samples] = (),
    launch_s: float = 0.0,
    machine: Mapping[str, str | float] | None = None,
    host: Sequence[HostTime] = (),
) -> Path:
    """Write the profile to `path` and return it. slower: times the law. skew: of decode batches of unequal lengths.

    machine: facts, with which the profile describes a device that the catalogue lacks (CPU_MACHINE, GPU_MACHINE).
    """
    tables = [rows(family, "fp32" if family == "sampling" else dtype, slower) for family in families]
    if skew:
        tables.append(skewed(rows("attention_decode", "bf16", 1.0), skew))
    measured = MeasuredSet(
        device=device,
        library=library,
        version="1",
        source="made up",
        tables=tuple(tables),
        collectives=tuple(collectives),
        host=(*host, *([HostTime(name="eager_launch", seconds=launch_s, spread=0.0)] if launch_s else [])),
        machine=machine or {},
    )
    fits = fit_set(measured, seed=0, tell=lambda _: None)
    write_profile(profile_table(measured, fits, command="test"), path)
    return path
