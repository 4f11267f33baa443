"""Design: where to measure. Candidates drawn in log space from the served shapes, ordered to fill the space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.points import OPTIONAL_DIMS, POINT_DIMS, KernelPoint
from simtool.calibration.profiling.passes import EMBEDDING_PASSES, KINDS, KV_WIDTHS, PASSES, SAMPLING_PASSES
from simtool.calibration.profiling.routing import ROUTINGS
from simtool.calibration.profiling.shapes import KernelShape
from simtool.hardware.fitted_work import FAMILY_TERMS, MLA_NOPE, MLA_ROPE, ROUTING, FamilyTerms
from simtool.hardware.roofline import Work
from simtool.models.operators import ELEMENTWISE_KINDS
from simtool.units import DTYPE_BYTES

Array = NDArray[np.float64]

POOL = 600  # candidates of a family and dtype
DRAWS = 6_000  # drawn at most to find them
VARIANT_DISTANCE = 0.35  # between two kernels at the same place, where the whole range of a feature is 1
SKEWED_SHARE, OTHER_ROUTING_SHARE, PREFIX_SHARE = 0.25, 0.2, 0.5
SHORTEST_LENGTH = 16.0
ATTENTION = ("attention_prefill", "attention_decode", "mla_prefill", "mla_decode")
PAGE = 16.0  # tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a point may cost. flops_per_s (of attention: its own), bytes_per_s: roughly what the device reaches.

    most_prefill_batch: 1 on one CPU thread, where the requests of a batch run one after the other.
    """

    seconds: float
    call_bytes: float
    flops_per_s: float
    attention_flops_per_s: float
    bytes_per_s: float
    most_tokens: float
    most_batch: float
    most_prefill_batch: float
    longest_context: float


def terms_of(family: str) -> FamilyTerms:
    """Work and features of a family; what only moves bytes is alike."""
    return FAMILY_TERMS.get(family, FAMILY_TERMS["elementwise"])


def candidates(
    shapes: Sequence[KernelShape], dtype: str, kernels: Mapping[str, str], limits: Limits, seed: int
) -> list[KernelPoint]:
    """Up to POOL distinct points of the shapes' (one) family within the limits, in the order to measure them.

    kernels: the name that runs for a shape's kernel ("": the family's own). One seed, one list.
    """
    if not shapes:
        return []
    random = np.random.default_rng([seed, *f"{shapes[0].family} {dtype}".encode()])
    found: dict[object, KernelPoint] = {}
    for _ in range(DRAWS):
        shape = shapes[int(random.integers(len(shapes)))]
        point = _drawn(shape, dtype, kernels[shape.kernel], limits, random)
        if _allowed(point, limits):
            found[point.key] = point
        if len(found) == POOL:
            break
    pool = list(found.values())
    if shapes[0].family != "moe":
        return _filling(pool)
    fitted = [point for point in pool if point.kernel.endswith(f":{ROUTING}")]
    return _interleaved(_filling(fitted), _filling([point for point in pool if point not in fitted]))


def _filling(points: list[KernelPoint]) -> list[KernelPoint]:
    return [points[index] for index in filling_order(coordinates(points))]


def _interleaved(main: list[KernelPoint], other: list[KernelPoint]) -> list[KernelPoint]:
    """The routings that no fit uses come in between, one after every few."""
    every = round(1.0 / OTHER_ROUTING_SHARE) - 1
    mixed: list[KernelPoint] = []
    for index, point in enumerate(main):
        mixed += [point, *other[index // every : index // every + 1]] if index % every == every - 1 else [point]
    return mixed


def coordinates(points: Sequence[KernelPoint]) -> Array:
    """Features of points of one family [N, F], each scaled to 0..1, and columns that keep unlike kernels apart."""
    if not points:
        return np.zeros((0, 0))
    places = log_features(points)
    low, high = places.min(axis=0), places.max(axis=0)
    scaled = (places - low) / np.where(high > low, high - low, 1.0)
    names = sorted({point.kernel for point in points})
    which = np.array([names.index(point.kernel) for point in points])
    return np.hstack([scaled, VARIANT_DISTANCE / np.sqrt(2.0) * np.eye(len(names))[which]])


def filling_order(places: Array) -> NDArray[np.intp]:
    """Greedy maximin: each next row of `places` [N, F] is the one farthest from all before, so every prefix fills."""
    if not len(places):
        return np.zeros(0, dtype=np.intp)
    order = [int(np.argmin(np.sum((places - places.mean(axis=0)) ** 2, axis=1)))]
    nearest = np.sum((places - places[order[0]]) ** 2, axis=1)
    for _ in range(len(places) - 1):
        nearest[order[-1]] = -1.0
        chosen = int(np.argmax(nearest))
        order.append(chosen)
        taken = nearest < 0
        nearest = np.minimum(nearest, np.sum((places - places[chosen]) ** 2, axis=1))
        nearest[taken] = -1.0
    return np.array(order, dtype=np.intp)


def columns_of(points: Sequence[KernelPoint]) -> dict[str, Array]:
    """Dims of points of one family as columns; the optional ones are left out."""
    family = points[0].family
    return {dim: np.array([point.dims[dim] for point in points]) for dim in POINT_DIMS[family]}


def log_features(points: Sequence[KernelPoint]) -> Array:
    """The cost model's log2 features of points of one family, [N, F]."""
    return terms_of(points[0].family).features(columns_of(points))


def work_of(points: Sequence[KernelPoint]) -> Work:
    """The cost model's work of points of one family and dtype."""
    return terms_of(points[0].family).work(columns_of(points), points[0].dtype)


def _allowed(point: KernelPoint, limits: Limits) -> bool:
    work = work_of([_padded(point)])
    flops, moved = float(work.flops[0]), float(work.hbm_bytes[0])
    rate = limits.attention_flops_per_s if point.family in ATTENTION else limits.flops_per_s
    seconds = flops / rate + moved / limits.bytes_per_s
    return seconds <= limits.seconds and max(moved, _expanded_bytes(point)) <= limits.call_bytes


def _expanded_bytes(point: KernelPoint) -> float:
    """What a prefill of latent attention holds: keys and padded values of every head, for the cached tokens too."""
    if point.family != "mla_prefill":
        return 0.0
    dims = point.dims
    rows = dims["seq"] + 2.0 * (dims["prefix"] + dims["seq"])
    return dims["batch"] * dims["heads"] * rows * (MLA_NOPE + MLA_ROPE) * DTYPE_BYTES[point.dtype]


def _padded(point: KernelPoint) -> KernelPoint:
    """A decode batch as the kernel sees it: every request has the whole pages of the longest."""
    if "kv_len" not in point.dims:
        return point
    longest = PAGE * np.ceil(point.dims.get("kv_max", point.dims["kv_len"]) / PAGE)
    dims = {name: value for name, value in point.dims.items() if name not in OPTIONAL_DIMS[point.family]}
    dims |= {"kv_len": float(longest)}
    return KernelPoint(family=point.family, dtype=point.dtype, kernel=point.kernel, dims=dims)


def _log_uniform(random: np.random.Generator, low: float, high: float) -> float:
    return float(round(np.exp(random.uniform(np.log(low), np.log(max(high, low))))))


def _drawn(shape: KernelShape, dtype: str, kernel: str, limits: Limits, random: np.random.Generator) -> KernelPoint:
    """A random call of `shape`."""
    tokens = _log_uniform(random, 1.0, limits.most_tokens)
    sizes, detail = dict(shape.sizes), dict[str, float]()
    match shape.family:
        case "gemm":
            sizes["m"] = tokens
        case "moe":
            routing = ROUTINGS[0] if random.random() >= OTHER_ROUTING_SHARE else str(random.choice(ROUTINGS[1:]))
            sizes["tokens"], kernel = tokens, f"{kernel}:{routing}"
        case "attention_prefill" | "mla_prefill":
            with_prefix = random.random() < PREFIX_SHARE
            sizes["batch"] = _log_uniform(random, 1.0, limits.most_prefill_batch)
            sizes["seq"] = _log_uniform(random, SHORTEST_LENGTH, limits.most_tokens)
            sizes["prefix"] = _log_uniform(random, SHORTEST_LENGTH, limits.longest_context) if with_prefix else 0.0
            kernel = f"{kernel}:{'prefix' if with_prefix else 'causal'}"
        case "attention_decode" | "mla_decode":
            lengths = _decode_lengths(limits, random)
            sizes |= lengths
            kernel = f"{kernel}:{'skewed' if 'kv_max' in lengths else 'equal'}"
        case _:
            detail = {"tokens": tokens, **sizes}
            width = sizes["width"] + KV_WIDTHS * sizes.get("kv_width", 0.0)
            sizes = {"bytes": _moved_bytes(shape.family, kernel, tokens, width, dtype)}
            if shape.family == "elementwise":
                sizes["kind"] = float(ELEMENTWISE_KINDS.index(KINDS[kernel]))
    return KernelPoint(family=shape.family, dtype=dtype, kernel=kernel, dims=sizes, detail=detail)


def _decode_lengths(limits: Limits, random: np.random.Generator) -> dict[str, float]:
    """Batch and mean length; for some, the longest, in whole pages."""
    batch = _log_uniform(random, 1.0, limits.most_batch)
    mean = _log_uniform(random, SHORTEST_LENGTH, limits.longest_context)
    longest = PAGE * np.ceil(mean * random.uniform(1.2, min(4.0, max(0.8 * batch, 1.2))) / PAGE)
    if longest >= 0.95 * batch * mean or random.random() >= SKEWED_SHARE:
        return {"batch": batch, "kv_len": mean}
    return {"batch": batch, "kv_len": mean, "kv_max": float(longest)}


def _moved_bytes(family: str, kernel: str, tokens: float, width: float, dtype: str) -> float:
    """Bytes of a memory-bound kernel, as the lowering counts them."""
    if family == "elementwise":
        return PASSES[kernel] * tokens * width * DTYPE_BYTES[dtype]
    if family == "embedding":
        return EMBEDDING_PASSES * tokens * width * DTYPE_BYTES[dtype]
    return SAMPLING_PASSES * tokens * width * DTYPE_BYTES["fp32"]
