"""Fault localisation: a hot cell of a delay matrix is a link, a hot row a sender, a hot column a receiver."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simtool.errors import InputError

Array = NDArray[np.float64]
_MAD = 1.4826  # standard deviations a median absolute deviation of normal errors
_OUTLIER = 5.0  # in such deviations; 1 of 10^6 normal errors
_LEAST = 1e-9  # noise of a simulation without any: rounding
_SWEEPS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """kind "link" has both ends, "sender" only the source, "receiver" only the target (-1: none). slowdown: delay over
    the usual one. score: in standard deviations of the noise.
    """

    kind: str
    source: int
    target: int
    slowdown: float
    score: float


def localise_faults(
    delays: ArrayLike, baseline: ArrayLike | None = None, *, chance: float = 1e-3, least: float = 0.1
) -> tuple[Fault, ...]:
    """Faults that a matrix of seconds [n, n] shows (diagonal ignored), the surest first; () if there are none.

    baseline: usual delays (of earlier periods), where pairs differ. Logarithms are split into a common level, rows,
    columns and cells by medians (Tukey's median polish), so that fewer than half of a row hardly move its level. A row,
    column or cell is a fault where it exceeds what noise reaches with `chance` anywhere in the matrix, and `least`.
    """
    logs = _logs(delays, baseline)
    count = len(logs)
    rows, columns, cells = median_polish(logs)
    noise = _noise(cells)
    line_noise = noise * np.sqrt(np.pi / 2 / (count - 1))  # of a median of n - 1 normal errors
    reach = NormalDist().inv_cdf(1.0 - chance / (count * (count + 1)))
    floor = np.log1p(least)
    faults = [
        Fault(
            kind=kind,
            source=index if kind == "sender" else -1,
            target=index if kind == "receiver" else -1,
            slowdown=float(np.exp(level)),
            score=float(level / line_noise),
        )
        for kind, levels in (("sender", rows), ("receiver", columns))
        for index, level in enumerate(levels)
        if level > max(reach * line_noise, floor)
    ]
    hot = np.argwhere(np.nan_to_num(cells) > max(reach * noise, floor))
    faults += [
        Fault(
            kind="link",
            source=int(i),
            target=int(j),
            slowdown=float(np.exp(cells[i, j])),
            score=float(cells[i, j] / noise),
        )
        for i, j in hot
    ]
    return tuple(sorted(faults, key=lambda fault: -fault.score))


def _noise(cells: Array) -> float:
    """Standard deviation of the cells that are no outliers. Medians fit many cells exactly, so that a median of what is
    left says too little: it only tells outliers apart, and the rest is squared and summed, fitted levels not counted.
    """
    count, sizes = len(cells), np.abs(cells[np.isfinite(cells)])
    kept = sizes[sizes <= _OUTLIER * max(_MAD * float(np.median(sizes)), _LEAST)]
    free = len(kept) - (2 * count - 1)
    return max(float(np.sqrt(np.sum(kept**2) / free)) if free > 0 else float(sizes.max()), _LEAST)


def median_polish(table: Array) -> tuple[Array, Array, Array]:
    """(rows, columns, cells) above the common level: table = level + row + column + cell. NaN cells are left out."""
    cells = table - np.nanmedian(table)
    rows, columns = np.zeros(len(table)), np.zeros(len(table))
    for _ in range(_SWEEPS):
        step = np.nanmedian(cells, axis=1)
        rows, cells = rows + step, cells - step[:, None]
        step = np.nanmedian(cells, axis=0)
        columns, cells = columns + step, cells - step
    return rows - np.median(rows), columns - np.median(columns), cells


def _logs(delays: ArrayLike, baseline: ArrayLike | None) -> Array:
    table = np.array(delays, np.float64)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or len(table) < 4:
        raise InputError(table.shape, "is no matrix of delays", "[n, n] seconds, n >= 4")
    usual = np.ones_like(table) if baseline is None else np.asarray(baseline, np.float64)
    if usual.shape != table.shape:
        raise InputError(usual.shape, f"is no baseline of delays {table.shape}")
    off = ~np.eye(len(table), dtype=bool)
    if not all(np.isfinite(part[off]).all() and (part[off] > 0).all() for part in (table, usual)):
        raise InputError("delays", "must be positive and finite off the diagonal", "seconds")
    logs = np.full_like(table, np.nan)
    logs[off] = np.log(table[off] / usual[off])
    return logs
