"""Sanity: rows that cannot be right, and tables whose rows disagree about the unit.

What a row is held against:
- it is finite and positive, and no kernel ends within LEAST_S;
- the device's compute peak (measurements.refuse_bad_rows);
- the caches: bytes come at most CACHE_OVER_MEMORY times as fast as from memory, and all but a cache-full of them at
  the memory's own rate;
- its neighbours in the family's features: a row UNIT_GAP decades slower or faster than one of them, for its work, is in
  another unit (or timed something else).
A few such rows are dropped and named; a table with more of them is refused by the first one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.measurements import FASTER_THAN_PEAK, Measurements, Refusal, refuse_bad_rows
from simtool.errors import InputError
from simtool.hardware.device import Device
from simtool.hardware.fitted_work import FAMILY_TERMS
from simtool.hardware.profile_choice import computes_in
from simtool.hardware.roofline import Work

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

MOST_BAD = 0.02  # all public tables stay below it
# Rows up to NEARLY times too fast for the memory are broken points, not another unit: 4.6% of one public table (A100,
# TensorRT-LLM 1.0 decode attention at 16k tokens and more, up to 1.7 times the HBM's rate).
NEARLY, MOST_NEARLY = 3.0, 0.10
LEAST_S = 1e-7  # one DRAM access takes 0.1 us on a CPU, 0.5 us on a GPU
# L2 over HBM bandwidth of published microbenchmarks: 1.5 (H200), 2.6 (A100), 5 to 6.7 (RTX 4090, L40S, L4).
CACHE_OVER_MEMORY = 8.0
NEIGHBOURS = 9  # the row itself and eight more: of a half-wrong table 1 row in 250 has only wrong neighbours
UNIT_GAP = 2.3  # decades; neighbours of the public tables are within 2, a wrong SI prefix is 3
LAUNCH_S = 3e-6  # floor of a GPU kernel; keeps tiny kernels' ratio to the roofline near 1
USUAL_LEVEL = 1.0  # decades above the floor: real kernels lie between 0 and 2
NOMINAL_FLOPS, NOMINAL_BYTES_PER_S = 3e14, 2e12  # a device without a catalogue entry, compared with itself only


def checked(rows: Measurements, device: Device | None) -> Measurements:
    """`rows` less the bad ones, named in `refused`. InputError names the first where too many are bad.

    device None: not in the catalogue, so only the rows themselves are compared.
    """
    total = len(rows.seconds)
    kept = refuse_bad_rows(rows, device)
    kept = _without(kept, kept.seconds < LEAST_S, f"is shorter than {LEAST_S:g} s, a single memory access")
    near = 0
    if device is not None and rows.family in FAMILY_TERMS:
        floor = bytes_floor(kept, device)
        near = int(np.count_nonzero((kept.seconds < floor) & (kept.seconds >= floor / NEARLY)))
        kept = _without(kept, kept.seconds < floor, "moves its bytes faster than the device's memory and cache can")
    level, usual = _levels(kept, device)
    wrong = off_by_a_unit(level, _features(kept), usual)
    kept = _without(kept, wrong, "is hundreds of times off its neighbours, as in another unit")
    allowed = MOST_BAD * total + min(near, MOST_NEARLY * total)
    refuse_many(kept.table, kept.refused, allowed, total)
    if device is not None and rows.family in FAMILY_TERMS and len(level) and np.median(level) > UNIT_GAP:
        refuse_all(kept.table, int(kept.lines[0]), float(kept.seconds[0]))
    return kept


def refuse_many(table: str, refused: Sequence[Refusal], allowed: float, total: int) -> None:
    """InputError with the first of `refused` if they are more than `allowed`."""
    if len(refused) > allowed:
        first = min(refused, key=lambda refusal: refusal.line)
        raise InputError(
            f"{table} line {first.line}",
            first.reason,
            f"{len(refused)} of {total} rows cannot be right: check the unit of the times",
        )


def refuse_all(table: str, line: int, seconds: float) -> None:
    """InputError: the whole table is in a larger unit than it says."""
    raise InputError(
        f"{table} line {line}",
        f"{seconds:.3g} s, and half of the table takes over {10**UNIT_GAP:.0f} times what the device needs",
        "check the unit of the times",
    )


def _without(rows: Measurements, bad: Flags, rule: str) -> Measurements:
    found = tuple(
        Refusal(line=int(line), reason=f"{seconds:.3g} s {rule}")
        for line, seconds in zip(rows.lines[bad], rows.seconds[bad], strict=True)
    )
    return replace(rows.take(~bad), refused=(*rows.refused, *found))


def bytes_floor(rows: Measurements, device: Device) -> Array:
    """Least seconds to move the bytes of each row."""
    moved = FAMILY_TERMS[rows.family].work(rows.dims, rows.dtype).hbm_bytes
    cached = moved / (CACHE_OVER_MEMORY * device.hbm_bytes_per_s)
    if rows.family == "moe":  # how many experts are read is an expectation under the assumed routing
        return cached
    return np.maximum(cached, (moved - device.l2_bytes) / (FASTER_THAN_PEAK * device.hbm_bytes_per_s))


def off_by_a_unit(level: Array, features: Array, usual: float) -> Flags:
    """Rows that are UNIT_GAP decades from a neighbour and further than it from the `usual` level.

    level [n]: log10 of time over the roofline floor; features [n, f].
    """
    from scipy.spatial import cKDTree

    count = min(NEIGHBOURS, len(level))
    if count < 2:
        return np.zeros(len(level), dtype=np.bool_)
    _, near = cKDTree(features).query(features, k=count)
    low, high = level[near].min(axis=1), level[near].max(axis=1)
    slow = (level - low >= UNIT_GAP) & (np.abs(level - usual) > np.abs(low - usual))
    fast = (high - level >= UNIT_GAP) & (np.abs(level - usual) > np.abs(high - usual))
    return np.asarray(slow | fast)


def _levels(rows: Measurements, device: Device | None) -> tuple[Array, float]:
    """Decades above the roofline floor, and the level of a right row: the table's own middle where no peak is known."""
    if rows.family not in FAMILY_TERMS:
        return _about_middle(np.log10(rows.seconds))
    work: Work = FAMILY_TERMS[rows.family].work(rows.dims, rows.dtype)
    if device is None:
        floor = LAUNCH_S + np.maximum(work.flops / NOMINAL_FLOPS, work.hbm_bytes / NOMINAL_BYTES_PER_S)
        return _about_middle(np.log10(rows.seconds / floor))
    peak = device.peak_flops(computes_in(rows.family, rows.dtype))
    floor = LAUNCH_S + np.maximum(work.flops / peak, work.hbm_bytes / device.hbm_bytes_per_s)
    return np.log10(rows.seconds / floor), USUAL_LEVEL


def _about_middle(level: Array) -> tuple[Array, float]:
    return level, float(np.median(level)) if len(level) else 0.0


def _features(rows: Measurements) -> Array:
    if rows.family in FAMILY_TERMS:
        return FAMILY_TERMS[rows.family].features(rows.dims)
    return np.stack([np.log2(np.maximum(column, 1e-3)) for column in rows.dims.values()], axis=-1)
