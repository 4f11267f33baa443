"""Sanity of collectives: points that no link can carry, and points in another unit than their neighbours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.collective_samples import Samples
from simtool.calibration.measurements import Refusal
from simtool.calibration.sanity import (
    LEAST_S,
    MOST_BAD,
    UNIT_GAP,
    USUAL_LEVEL,
    off_by_a_unit,
    refuse_all,
    refuse_many,
)
from simtool.hardware.device import Device

Array = NDArray[np.float64]

# Switches that add up (NVLink SHARP) save an all-reduce half of its traffic; an NVLink bridge, which the catalogue's
# PCIe cards may have, is 1.8 times PCIe 4.0; link rates are quoted 5 to 10% below the wire's.
FASTER_THAN_LINK = 2.5
LAUNCH_S = 5e-6
NOMINAL_BYTES_PER_S = 2.5e10  # a device without a catalogue entry, compared with itself only


def bus_bytes(kind: str, ranks: int, size_bytes: Array) -> Array:
    """Bytes that one rank has to send, as nccl-tests counts bus bandwidth (size: the larger of its buffers)."""
    if kind == "send_recv":
        return size_bytes
    share = (ranks - 1) / ranks
    return size_bytes * (2.0 * share if kind == "all_reduce" else share)


def checked_samples(samples: Samples, device: Device | None) -> Samples:
    """`samples` less the bad points, named in `refused`. InputError names the first where too many are bad."""
    total = len(samples.seconds)
    size, seconds = samples.size_bytes, samples.seconds
    reasons: dict[int, str] = {}
    number = np.isfinite(size) & np.isfinite(seconds)
    _note(reasons, ~number, "a size or time is missing or not a number")
    _note(reasons, number & ~((size > 0) & (seconds >= LEAST_S)), "the size is 0 or the time too short for a message")
    link = NOMINAL_BYTES_PER_S if device is None else device.scale_up_bytes_per_s
    needed = bus_bytes(samples.kind, samples.ranks, np.where(number, size, 0.0)) / link
    if device is not None:
        fast = number & (seconds < needed / FASTER_THAN_LINK)
        _note(reasons, fast, f"is over {FASTER_THAN_LINK} x the bandwidth of the {device.scale_up} between the devices")
    good = np.array([row for row in range(total) if row not in reasons], dtype=np.intp)
    level = np.log10(seconds[good] / (LAUNCH_S + needed[good]))
    usual = USUAL_LEVEL if device is not None else float(np.median(level)) if len(level) else 0.0
    wrong = off_by_a_unit(level, np.log2(size[good])[:, None], usual)
    for row in good[wrong]:
        reasons[int(row)] = "is hundreds of times off its neighbours, as in another unit"
    kept = _kept(samples, reasons)
    refuse_many(f"{samples.source} {samples.kind}", kept.refused, MOST_BAD * total, total)
    if device is not None and len(level) and np.median(level) > UNIT_GAP:
        refuse_all(f"{samples.source} {samples.kind}", _line(samples, 0), float(seconds[0]))
    return kept


def _note(reasons: dict[int, str], rows: NDArray[np.bool_], reason: str) -> None:
    for row in np.flatnonzero(rows):
        reasons.setdefault(int(row), reason)


def _line(samples: Samples, row: int) -> int:
    return samples.lines[row] if samples.lines else row + 1


def _kept(samples: Samples, reasons: dict[int, str]) -> Samples:
    rows = [row for row in range(len(samples.seconds)) if row not in reasons]
    refused = tuple(
        Refusal(
            line=_line(samples, row),
            reason=f"{samples.size_bytes[row]:g} bytes in {samples.seconds[row]:.3g} s: {reasons[row]}",
        )
        for row in sorted(reasons)
    )
    return replace(
        samples,
        size_bytes=samples.size_bytes[rows],
        seconds=samples.seconds[rows],
        lines=tuple(samples.lines[row] for row in rows) if samples.lines else (),
        refused=(*samples.refused, *refused),
    )
