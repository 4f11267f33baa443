"""Traffic of expert-parallel dispatch and combine: bytes between ranks, and to hosts where copies travel once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simtool.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertTraffic:
    """Bytes of a dispatch. to_rank [n, n]: a copy for each rank that holds a chosen expert (once a rank, or once an
    expert: see who made it). to_host [n, hosts]: one copy for each host that has such a rank.
    """

    to_rank: Array
    to_host: Array


def routed_traffic(
    choice: ArrayLike, experts: int, hosts: Sequence[int], token_bytes: float, *, per_expert: bool = False
) -> ExpertTraffic:
    """choice [ranks, tokens, k]: experts of each token; rank r holds experts r·e/n … (r+1)·e/n. hosts: of each rank.

    per_expert: a rank gets a copy for each of its chosen experts (low latency), else one for all of them.
    """
    picked = np.asarray(choice, np.int64)
    count = len(hosts)
    if picked.ndim != 3 or len(picked) != count or experts % count or picked.min() < 0 or picked.max() >= experts:
        raise InputError(picked.shape, f"is no routing to {experts} experts on {count} ranks", "[ranks, tokens, k]")
    places = np.unique(np.asarray(hosts), return_inverse=True)[1]
    rank_of = picked // (experts // count)
    to_rank = _copies(rank_of, count, distinct=not per_expert)
    to_host = _copies(places[rank_of], int(places.max()) + 1, distinct=True)
    return ExpertTraffic(to_rank=to_rank * token_bytes, to_host=to_host * token_bytes)


def even_traffic(hosts: Sequence[int], tokens: int, chosen: int, token_bytes: float) -> ExpertTraffic:
    """What random routing gives on average, a copy for each chosen expert: every rank gets tokens · chosen / n."""
    count = len(hosts)
    sizes = np.unique(np.asarray(hosts), return_counts=True)[1]
    reached = 1.0 - (1.0 - sizes / count) ** chosen
    return ExpertTraffic(
        to_rank=np.full((count, count), tokens * chosen * token_bytes / count),
        to_host=np.tile(tokens * token_bytes * reached, (count, 1)),
    )


def _copies(target: NDArray[np.int64], count: int, *, distinct: bool) -> Array:
    """[ranks, count]: tokens that each rank sends to each target, once a token where `distinct`."""
    table = np.zeros((len(target), count))
    for rank, tokens in enumerate(target):
        ordered = np.sort(tokens, axis=1)
        first = np.ones_like(ordered, dtype=bool)
        if distinct:
            first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        table[rank] = np.bincount(ordered[first], minlength=count)
    return table
