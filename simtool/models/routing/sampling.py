"""Sampling of routing traces, one layer after the other, all tokens of many sequences at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.models.routing.source import RoutingSource, floored
from simtool.models.routing.trace import RoutingTrace

_CHUNK = 2**22  # clocks drawn at once: bounds the temporary memory
_TINY = 1e-30  # of an exponential variate: float32 may round it to 0


def sample_trace(
    source: RoutingSource,
    *,
    sequences: int,
    output_tokens: int,
    rng: np.random.Generator,
    prompt_tokens: int = 0,
    layers: tuple[int, ...] = (),
) -> RoutingTrace:
    """A trace of `sequences` requests that decode side by side: step 0 has the prompts (where there are any).

    layers: the model's numbers of the source's layers (0, 1, ... where they are not given). Same generator, same trace.
    """
    length = prompt_tokens + output_tokens
    if sequences < 1 or prompt_tokens < 0 or output_tokens < 0 or length < 1:
        raise InputError(f"{sequences} x {prompt_tokens}+{output_tokens} tokens", "at least one token is sampled")
    position = np.arange(length, dtype=np.int32)
    step = np.maximum(position - max(prompt_tokens - 1, 0), 0).astype(np.int32)
    kinds = _classes(source, sequences, length, rng)
    experts = np.empty((sequences, length, source.num_layers, source.top_k), np.int16)
    for layer in range(source.num_layers):
        rates = _rates(source, layer, int(step[-1]) + 1, rng)
        for part in _parts(sequences, length * source.num_experts):
            clocks = _clocks((part.stop - part.start, length, source.num_experts), source.locality, rng)
            clocks /= _of_token(rates, kinds[part], step, source)
            experts[part, :, layer] = first_to_ring(clocks, source)
    return RoutingTrace(
        experts=experts.reshape(sequences * length, source.num_layers, source.top_k),
        sequence=np.repeat(np.arange(sequences, dtype=np.int32), length),
        position=np.tile(position, sequences),
        step=np.tile(step, sequences),
        prefill=np.tile(position < prompt_tokens, sequences),
        num_experts=source.num_experts,
        layers=layers or tuple(range(source.num_layers)),
        source=source.source,
    )


def first_to_ring(clocks: NDArray[np.float32], source: RoutingSource) -> NDArray[np.int16]:
    """The top_k earliest of the last axis, in order, within the groups of the earliest clocks: int16[..., top_k]."""
    if source.topk_groups < source.groups:
        grouped = clocks.reshape(*clocks.shape[:-1], source.groups, -1)
        earliest = grouped.min(axis=-1)
        latest = np.partition(earliest, source.topk_groups - 1, axis=-1)[..., source.topk_groups - 1, None]
        clocks = np.where((earliest <= latest)[..., None], grouped, np.inf).reshape(clocks.shape)
    chosen = _earliest(clocks, source.top_k)
    order = np.argsort(np.take_along_axis(clocks, chosen, axis=-1), axis=-1)
    return np.take_along_axis(chosen, order, axis=-1).astype(np.int16)


def _of_token(
    rates: NDArray[np.float32], kinds: NDArray[np.int64], step: NDArray[np.int32], source: RoutingSource
) -> NDArray[np.float32]:
    """Rates that broadcast to [sequences, length, experts]: by step where they drift, else by class."""
    if source.drift:
        return rates[step][None]
    return rates[kinds] if len(rates) > 1 else rates[None]


def _earliest(clocks: NDArray[np.float32], top_k: int) -> NDArray[np.int64]:
    """Places of the top_k earliest of the last axis, in any order.

    Partitioning values is several times faster than partitioning places; it fails where two clocks are equal.
    """
    last = np.partition(clocks, top_k - 1, axis=-1)[..., top_k - 1, None]
    places = np.flatnonzero(clocks <= last)
    if len(places) == clocks[..., 0].size * top_k:
        return np.asarray(places % clocks.shape[-1]).reshape(*clocks.shape[:-1], top_k)
    return np.argpartition(clocks, top_k - 1, axis=-1)[..., :top_k]


def _classes(source: RoutingSource, sequences: int, length: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Each token's class, int64[sequences, length]."""
    drawn = rng.random((sequences, length))
    latest = _latest((sequences, length), source.locality, rng)
    ends = np.cumsum(source.class_share)[:-1]
    return np.searchsorted(ends, np.take_along_axis(drawn, latest, axis=1), side="right")


def _clocks(shape: tuple[int, int, int], locality: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Unit exponentials [sequences, length, experts]; each is the token before's with probability `locality`."""
    fresh = np.maximum(rng.standard_exponential(shape, dtype=np.float32), np.float32(_TINY))
    if not locality:
        return fresh
    return np.take_along_axis(fresh, _latest(shape, locality, rng), axis=1)


def _latest(shape: tuple[int, ...], locality: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """For each place along axis 1, the last one at or before it that was drawn anew."""
    place = np.arange(shape[1]).reshape(1, -1, *[1] * (len(shape) - 2))
    if not locality:
        return np.broadcast_to(place, shape)
    kept = rng.random(shape, dtype=np.float32) < locality
    return np.maximum.accumulate(np.where(kept, 0, place), axis=1)


def _rates(source: RoutingSource, layer: int, steps: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """float32[classes, experts], or [steps, experts] where popularity drifts.

    The drift is the gamma process of Lewis, McKenzie and Hugus (1989): X' = B X + G with B ~ Beta(c(1-d), c d) and
    G ~ Gamma(c d) keeps X ~ Gamma(c), and so the normalised rates are Dirichlet at every step.
    """
    if not source.drift:
        return np.asarray(source.rates[layer], np.float32)
    shape, new = source.concentration, source.drift
    now = source.rates[layer, 0] / source.rates[layer, 0].sum() * rng.standard_gamma(shape * source.num_experts)
    path = [now]
    for _ in range(steps - 1):
        kept = rng.beta(shape * (1 - new), shape * new, source.num_experts) if new < 1 else 0.0
        now = kept * now + rng.standard_gamma(shape * new, source.num_experts)
        path.append(now)
    return np.asarray(floored(np.stack(path) + _TINY), np.float32)


def _parts(sequences: int, clocks_each: int) -> Iterator[slice]:
    """Slices of sequences whose clocks fit into a chunk."""
    size = max(1, _CHUNK // clocks_each)
    for start in range(0, sequences, size):
        yield slice(start, min(start + size, sequences))
