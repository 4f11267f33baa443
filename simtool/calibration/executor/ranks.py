"""Ranks: where one process stands among all, and the groups it works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from simtool.plan import Parallel


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """rank = ((stage * dp) + dp_rank) * tp + tp_rank."""

    stage: int
    dp_rank: int
    tp_rank: int


def place_of(rank: int, parallel: Parallel) -> Place:
    """The place of a rank."""
    rest, tp_rank = divmod(rank, parallel.tp)
    stage, dp_rank = divmod(rest, parallel.dp)
    return Place(stage=stage, dp_rank=dp_rank, tp_rank=tp_rank)


def rank_of(stage: int, dp_rank: int, tp_rank: int, parallel: Parallel) -> int:
    """The rank at a place."""
    return (stage * parallel.dp + dp_rank) * parallel.tp + tp_rank


class Group:
    """Collectives of `size` ranks, of which this is the index-th. A group of one has no handle and does nothing."""

    def __init__(self, size: int = 1, index: int = 0, handle: Any = None) -> None:
        self.size = size
        self.index = index
        self._handle = handle

    def all_reduce(self, x: torch.Tensor) -> torch.Tensor:
        """The sum over the group, in place."""
        if self.size > 1 and x.numel():
            torch.distributed.all_reduce(x, group=self._handle)
        return x

    def all_gather(self, x: torch.Tensor) -> torch.Tensor:
        """[rows, ...] of each rank -> [size x rows, ...], rank after rank."""
        if self.size == 1 or not x.numel():
            return x.new_empty((self.size * x.shape[0], *x.shape[1:])) if self.size > 1 else x
        whole = x.new_empty((self.size * x.shape[0], *x.shape[1:]))
        _gather(whole, x.contiguous(), self._handle)
        return whole

    def reduce_scatter(self, x: torch.Tensor) -> torch.Tensor:
        """[size x rows, ...] of each rank -> the sum's [rows, ...] that belong to this rank."""
        if self.size == 1:
            return x
        part = x.new_empty((x.shape[0] // self.size, *x.shape[1:]))
        _scatter(part, x.contiguous(), self._handle)
        return part


def _gather(whole: torch.Tensor, part: torch.Tensor, handle: Any) -> None:
    dist: Any = torch.distributed
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # renamed in torch 2.13
    gather(whole, part, group=handle)


def _scatter(part: torch.Tensor, whole: torch.Tensor, handle: Any) -> None:
    dist: Any = torch.distributed
    scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
    scatter(part, whole, group=handle)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """A rank's place and groups: tensor parallel, data parallel (same tp_rank), and all tp x dp of its stage."""

    parallel: Parallel
    place: Place
    tensor: Group
    data: Group
    experts: Group

    @property
    def first(self) -> bool:
        """Holds the embedding."""
        return self.place.stage == 0

    @property
    def last(self) -> bool:
        """Holds the LM head."""
        return self.place.stage == self.parallel.pp - 1

    @property
    def sequence_parallel(self) -> bool:
        """Tokens are cut over the tensor-parallel group before the experts (lowering_shard.Shard says when)."""
        return min(self.parallel.tp, self.parallel.dp, self.parallel.ep) > 1


def alone() -> Ranks:
    """One process without any other."""
    place = Place(stage=0, dp_rank=0, tp_rank=0)
    return Ranks(parallel=Parallel(), place=place, tensor=Group(), data=Group(), experts=Group())


def make_ranks(rank: int, parallel: Parallel) -> Ranks:
    """The groups of `rank` in an initialised torch.distributed world. Every rank must call it, in the same order."""
    place, p = place_of(rank, parallel), parallel
    tensor = [[rank_of(s, d, t, p) for t in range(p.tp)] for s in range(p.pp) for d in range(p.dp)]
    data = [[rank_of(s, d, t, p) for d in range(p.dp)] for s in range(p.pp) for t in range(p.tp)]
    experts = [[rank_of(s, d, t, p) for d in range(p.dp) for t in range(p.tp)] for s in range(p.pp)]
    return Ranks(
        parallel=parallel,
        place=place,
        tensor=_group_of(rank, tensor),
        data=_group_of(rank, data),
        experts=_group_of(rank, experts),
    )


def _group_of(rank: int, all_members: list[list[int]]) -> Group:
    own = Group()
    for members in all_members:
        handle = torch.distributed.new_group(members) if len(members) > 1 else None
        if rank in members:
            own = Group(len(members), members.index(rank), handle)
    return own
