"""OffloadPolicy: what a store does at each of its hooks, as data. The small functions behind the words are compiled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from simtool.errors import InputError

Evict = Literal["lru", "lfu", "fifo", "random", "farthest", "predicted"]
Miss = Literal["load", "cpu", "cheaper"]
Prefetch = Literal["none", "staging", "pool"]
Order = Literal["each", "all"]

EVICTS: tuple[Evict, ...] = get_args(Evict)
MISSES: tuple[Miss, ...] = get_args(Miss)
PREFETCHES: tuple[Prefetch, ...] = get_args(Prefetch)


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadPolicy:
    """The hooks admit, evict, prefetch, miss; place and split are the store's: what is there at first, and its pools.

    admit: an object that a layer needed stays in the layer's pool. Without it pools keep what they hold, and what is
        loaded passes through staging and is released when the layer is done.
    evict: who leaves a pool (and host memory) for another. "farthest" knows the future (Belady); "predicted" keeps what
        is predicted for the visits ahead, the nearest longest, and is LRU among the rest. "random" goes by `seed`.
    prefetch: where objects go that are loaded before they are needed.
    window: layers ahead that are prefetched, known from the predictions that the walk is given. A prefetch never
        takes the place of an object that is predicted for its own layer or an earlier one.
    most: objects of a layer that are prefetched (0: all that are predicted).
    wraps: the window runs on into the next step (layers that come in a fixed order).
    demote: prefetches that the gate proved wrong go behind all others, and are the first to leave.
    miss: what happens to an object that is not there: load it, compute it on the CPU where it is, or the cheaper one.
    order: "each" computes an object as soon as it is there, "all" when all that the layer needs are there.
    """

    name: str
    admit: bool = True
    evict: Evict = "lru"
    prefetch: Prefetch = "none"
    window: int = 0
    most: int = 0
    wraps: bool = False
    demote: bool = False
    miss: Miss = "load"
    order: Order = "each"
    seed: int = 1

    def __post_init__(self) -> None:
        """Raise InputError for a word that is no hook and a prefetch that looks nowhere."""
        known = {"evict": EVICTS, "miss": MISSES, "prefetch": PREFETCHES, "order": get_args(Order)}
        for field, words in known.items():
            if getattr(self, field) not in words:
                raise InputError(getattr(self, field), f"is no way to {field}", ", ".join(words))
        if self.window < 0 or self.most < 0 or (self.window > 0) != (self.prefetch != "none"):
            raise InputError(self.window, "layers ahead are prefetched, at least 1, where there is prefetching")


def lru(*, evict: Evict = "lru", order: Order = "each") -> OffloadPolicy:
    """Each pool keeps what was used last, or what `evict` says (Mixtral-offloading without speculation)."""
    return OffloadPolicy(name=evict, evict=evict, order=order)


def belady() -> OffloadPolicy:
    """Evicts what is needed farthest in the future: no demand policy loads less where a layer's needs fit its pool."""
    return OffloadPolicy(name="belady", evict="farthest")


def on_demand(*, order: Order = "all") -> OffloadPolicy:
    """Nothing is kept: what the gate chose is loaded, used and released."""
    return OffloadPolicy(name="on-demand", admit=False, order=order)


def speculative() -> OffloadPolicy:
    """Mixtral-offloading (arXiv 2312.17238): LRU, and the next layer's likely experts in staging buffers.

    A staged expert that is used takes the place of the least recently used one.
    """
    return OffloadPolicy(name="speculative", prefetch="staging", window=1)


def pre_gated() -> OffloadPolicy:
    """Pre-gated MoE (arXiv 2308.12066): block n's gate chooses for block n + 1, whose experts move while n computes."""
    return OffloadPolicy(name="pre-gated", admit=False, prefetch="staging", window=1, order="all")


def streaming(ahead: int) -> OffloadPolicy:
    """Layers come in order, `ahead` of them on their way or waiting, and are released when they are done."""
    return OffloadPolicy(name="streaming", admit=False, prefetch="staging", window=ahead, wraps=True, order="all")


def predicted_path(window: int, *, most: int = 0) -> OffloadPolicy:
    """ExpertFlow (arXiv 2410.17954): the path of all layers is known in part before the pass.

    In a pool that layers share, slots go to layers as they are predicted to need them, the nearest first, and are
    free again when a layer is done; wrong prefetches are demoted.
    """
    name = "predicted-path"
    return OffloadPolicy(name=name, evict="predicted", prefetch="pool", window=window, most=most, demote=True)


def activation_matrix(window: int, *, most: int = 0) -> OffloadPolicy:
    """MoE-Infinity (arXiv 2401.14361): the most activated stay, what a matched matrix names is prefetched."""
    return OffloadPolicy(name="activation-matrix", evict="lfu", prefetch="pool", window=window, most=most)


def static(miss: Miss = "cpu", *, order: Order = "all") -> OffloadPolicy:
    """What was placed stays; the rest is computed on the CPU (KTransformers) or wherever it is cheaper (Fiddler)."""
    return OffloadPolicy(name=f"static-{miss}", admit=False, miss=miss, order=order)
