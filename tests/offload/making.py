"""Needs, stores and prices that the tests of offload share."""

import numpy as np
from hypothesis import strategies as st

from simtool.simulator.offload import policy as stock
from simtool.simulator.offload.needs import Needs, expert_needs
from simtool.simulator.offload.prices import Prices, by_tokens


def routed(seed, *, steps=30, layers=3, experts=6, top_k=2, batch=1, locality=0.0) -> Needs:
    """Uniform top-k; a token repeats the experts of the token before it with probability `locality`, layer by layer."""
    rng = np.random.default_rng(seed)
    chosen = rng.random((steps, batch, layers, experts)).argsort(axis=3)[..., :top_k]
    for step in range(1, steps):
        kept = rng.random((batch, layers)) < locality
        chosen[step][kept] = chosen[step - 1][kept]
    flat = chosen.reshape(steps * batch, layers, top_k).astype(np.int16)
    return expert_needs(flat, np.repeat(np.arange(steps), batch), experts)


def mistaken(needs: Needs, seed, experts, wrong=0.5) -> Needs:
    """The same visits, some objects exchanged for others of their layer."""
    rng = np.random.default_rng(seed)
    starts, objects, layers = [0], [], needs.layers
    for visit in range(len(needs.starts) - 1):
        true = needs.objects[needs.starts[visit] : needs.starts[visit + 1]]
        first = visit % layers * experts
        other = first + rng.integers(0, experts, len(true))
        objects += sorted(set(np.where(rng.random(len(true)) < wrong, other, true).tolist()))
        starts.append(len(objects))
    tokens = np.ones(len(objects), np.int64)
    return Needs(starts=np.array(starts), objects=np.array(objects, np.int64), tokens=tokens, layers=layers)


def priced(layers, experts, *, dense_s=1.0, first_s=0.5, token_s=0.1, load_s=2.0, read_s=3.0, cpu_s=1.5) -> Prices:
    return Prices(
        dense_s=np.full((1, layers), dense_s),
        expert_s=by_tokens(first_s, token_s),
        load_s=np.full(layers * experts, load_s),
        read_s=np.full(layers * experts, read_s),
        cpu_s=by_tokens(0.0, cpu_s),
        cpu_sync_s=0.25,
    )


def held_first(layers, experts, slots):
    """bool[objects]: the first `slots` experts of each layer."""
    return np.tile(np.arange(experts) < slots, layers)


seeds = st.integers(0, 10_000)
# name -> (policy, per-layer slots used, shared slots used, staging slots used)
POLICIES = {
    "lru": stock.lru(),
    "lfu": stock.lru(evict="lfu"),
    "fifo": stock.lru(evict="fifo"),
    "random": stock.lru(evict="random"),
    "belady": stock.belady(),
    "on-demand": stock.on_demand(),
    "speculative": stock.speculative(),
    "pre-gated": stock.pre_gated(),
    "path": stock.predicted_path(2),
    "matrix": stock.activation_matrix(2, most=2),
    "static-cpu": stock.static(),
    "fiddler": stock.static("cheaper"),
}
