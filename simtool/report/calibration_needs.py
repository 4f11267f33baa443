"""Where more points would help: shapes whose predicted deviation is widest, and a map of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.hardware.fitted_process import GaussianProcess, matern
from simtool.hardware.fitted_work import FAMILY_TERMS
from simtool.hardware.kernel_profile import FamilyFit
from simtool.report.calibration_points import FitPoints

Array = NDArray[np.float64]
CANDIDATES = 3_000
_SEED = 0
# Dims that a serving engine's batch (or a model, for a GEMM) may set to any value; the others come from measured rows.
_FREE = {
    "gemm": ("m", "n", "k"),
    "moe": ("tokens",),
    "attention_prefill": ("batch", "seq", "prefix"),
    "attention_decode": ("batch", "kv_len"),
    "mla_prefill": ("batch", "seq", "prefix"),
    "mla_decode": ("batch", "kv_len"),
    "elementwise": ("bytes",),
    "embedding": ("bytes",),
    "sampling": ("bytes",),
}
# The two axes of a family's map, as products of dims and their names.
_AXES = {
    "gemm": (("m",), ("n", "k"), "m", "n × k"),
    "moe": (("tokens",), ("hidden", "inter"), "tokens", "hidden × inter"),
    "attention_prefill": (("seq",), ("batch", "heads"), "new tokens of a request", "batch × heads"),
    "attention_decode": (("kv_len",), ("batch", "kv_heads"), "cached tokens of a request", "batch × KV heads"),
    "mla_prefill": (("seq",), ("batch", "heads"), "new tokens of a request", "batch × heads"),
    "mla_decode": (("kv_len",), ("batch", "heads"), "cached tokens of a request", "batch × heads"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """A shape to measure next; deviation: of a measurement there, in log, once the spots before it are measured."""

    fit: FamilyFit
    dims: Mapping[str, float]
    deviation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Deviation over the box of a fit's points. candidates: dims [M]; deviation [M], log; spots: the widest, greedily.

    axes: (names, x [M], y [M], measured x [N], measured y [N]) of the family's map; None for one with one dim.
    """

    fit: FamilyFit
    deviation: Array
    spots: tuple[Spot, ...]
    axes: tuple[tuple[str, str], Array, Array, Array, Array] | None


def needs_of(points: FitPoints, count: int = 10) -> Needs | None:
    """The needs of one fit; None where no process knows its deviation."""
    process = points.fit.residual
    if not isinstance(process, GaussianProcess):
        return None
    dims = _candidates(points)
    features = FAMILY_TERMS[points.fit.family].features(dims)
    inside = np.clip(features, process.points.min(axis=0), process.points.max(axis=0))
    deviation = process.predict(inside)[1]
    rows = _greedy(process, inside, count)
    spots = tuple(
        Spot(fit=points.fit, dims={name: float(column[row]) for name, column in dims.items()}, deviation=wide)
        for row, wide in rows
    )
    return Needs(fit=points.fit, deviation=deviation, spots=spots, axes=_axes(points, dims))


def _candidates(points: FitPoints) -> dict[str, Array]:
    """Random shapes [M] within the measured range of each dim, none dearer than the dearest measured one."""
    rng = np.random.default_rng(_SEED)
    rows = rng.integers(0, len(points.measured_s), 2 * CANDIDATES)
    dims = {name: column[rows] for name, column in points.dims.items()}
    for name in _FREE.get(points.fit.family, ()):
        column = points.dims.get(name)
        if column is None or not column.any():
            continue
        low, high = float(column[column > 0].min()), float(column.max())
        drawn = np.exp(rng.uniform(np.log(low), np.log(high), len(rows)))
        step = max(1.0, float(np.gcd.reduce(column.astype(np.int64))))  # models' matrices are multiples of 32 or 64
        drawn = np.maximum(np.round(drawn / step), 1) * step
        dims[name] = np.where(dims[name] > 0, drawn, 0.0)  # without a prefix or a window stays without
    work = FAMILY_TERMS[points.fit.family].work(dims, points.fit.dtype)
    kept = (work.flops <= points.flops.max()) & (work.hbm_bytes <= points.hbm_bytes.max())
    first = np.flatnonzero(kept)[:CANDIDATES]
    return {name: column[first] for name, column in dims.items()}


def _greedy(process: GaussianProcess, features: Array, count: int) -> list[tuple[int, float]]:
    """(row, deviation) of the widest candidate, then of the widest once that one is measured, and so on.

    The deviation of a process does not depend on what is measured, so each step is a rank-one update.
    """
    signal = process.signal**2
    cross = signal * matern(features, process.points, process.scales)
    explained = cross @ process.inverse
    variance = signal - np.einsum("mn,mn->m", explained, cross)
    columns: list[Array] = []
    found = []
    for _ in range(min(count, len(features))):
        row = int(np.argmax(variance))
        wide = max(float(variance[row]), 0.0) + process.noise**2
        found.append((row, float(np.sqrt(wide))))
        column = signal * matern(features, features[row : row + 1], process.scales)[:, 0] - explained @ cross[row]
        for earlier in columns:
            column = column - earlier * earlier[row]
        columns.append(column / np.sqrt(wide))
        variance = variance - columns[-1] ** 2
    return found


def _axes(points: FitPoints, dims: Mapping[str, Array]) -> tuple[tuple[str, str], Array, Array, Array, Array] | None:
    found = _AXES.get(points.fit.family)
    if found is None or not {*found[0], *found[1]} <= set(dims):
        return None

    def product(columns: Mapping[str, Array], names: tuple[str, ...]) -> Array:
        return np.asarray(np.prod([columns[name] for name in names], axis=0))

    x, y = product(dims, found[0]), product(dims, found[1])
    return (found[2], found[3]), x, y, product(points.dims, found[0]), product(points.dims, found[1])
