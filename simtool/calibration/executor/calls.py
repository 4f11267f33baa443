"""Calls: a layer of one nano-batch as calls between which another nano-batch may have its turn."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

import numpy as np

from simtool.models.architecture import MoeMlp
from simtool.models.layer_chain import LayerKind, layer_chain
from simtool.models.lowering_shard import Shard

T = TypeVar("T")
U = TypeVar("U")
# Offers the calls that can come next, the usual one first, and is sent the one that is to run.
Calls = Generator[tuple[str, ...], str, T]

ATTENTION = ("attention_prefill", "attention_decode", "mla_prefill", "mla_decode", "kv_b")  # kv_b: of a prefill
_NAMED = {
    **dict.fromkeys(ATTENTION, "attention"),
    **{name: name for name in ("o", "attention_all_reduce")},
    "moe_dispatch": "dispatch",
    "experts_up": "experts",
    "experts_down": "experts",
    "moe_combine": "combine",
    "mlp_all_reduce": "close",
    "moe_all_gather": "close",
}


def run_through(calls: Calls[T]) -> T:
    """The result, each call in its usual order."""
    try:
        offered = next(calls)
        while True:
            offered = calls.send(offered[0])
    except StopIteration as ended:
        result: T = ended.value
        return result


def beside(main: Calls[T], branch: Calls[U]) -> Calls[tuple[T, U]]:
    """Two that do not wait for each other: whoever sends says which goes on; the branch's calls usually come first."""
    pair: tuple[Calls[T], Calls[U]] = (main, branch)
    offered = [next(calls) for calls in pair]
    results: list[T | U | None] = [None, None]
    while offered[0] or offered[1]:
        wanted = yield (*offered[1], *offered[0])
        which = int(wanted in offered[1])
        try:
            offered[which] = pair[which].send(wanted)
        except StopIteration as ended:
            offered[which], results[which] = (), ended.value
    return results[0], results[1]  # type: ignore[return-value]


def calls_of(shard: Shard, kind: LayerKind) -> dict[str, str]:
    """Operator of a layer → the executor's call that does it; attention's are `ATTENTION`, whatever the step has."""
    chain = layer_chain(shard, kind, np.array([1.0]))
    other = "route" if isinstance(kind.mlp, MoeMlp) else "mlp"
    found = {link.name: "attention_in" for link in chain.before}
    for link in chain.after:
        usual = "shared" if link.name.startswith("shared_") else other
        found[link.name] = _NAMED.get(link.name, usual)
    return found
