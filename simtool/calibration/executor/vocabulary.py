"""Embedding and LM head, the vocabulary cut over the tensor-parallel ranks."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from simtool.calibration.executor.linear import Linear
from simtool.calibration.executor.ranks import Group, Ranks
from simtool.calibration.executor.timer import FamilyTimer
from simtool.calibration.executor.weights import Weights
from simtool.models.architecture import ModelArchitecture


class Embedding:
    """A rank looks up what its `table` holds, and the rows are summed over the group."""

    def __init__(self, table: torch.Tensor, rows: int, group: Group) -> None:
        self._group = group
        self._rows = rows
        self._table = table

    def __call__(self, ids: torch.Tensor, timer: FamilyTimer) -> torch.Tensor:
        """int64[tokens] -> [tokens, hidden]."""
        if self._group.size == 1:
            return timer.run("embedding", F.embedding, ids, self._table)
        found = timer.run("embedding", self._own_rows, ids - self._group.index * self._rows)
        return timer.run("collective", self._group.all_reduce, found)

    def _own_rows(self, ids: torch.Tensor) -> torch.Tensor:
        own = (ids >= 0) & (ids < len(self._table))
        return F.embedding(ids.clamp(0, len(self._table) - 1), self._table) * own[:, None]


class Head:
    """Logits of the whole vocabulary on every rank of the group."""

    def __init__(self, table: torch.Tensor, rows: int, size: int, group: Group) -> None:
        self._group = group
        self._size = size
        self._rows = rows
        self._matrix = Linear(table)

    def __call__(self, states: torch.Tensor, timer: FamilyTimer) -> torch.Tensor:
        """[samples, hidden] -> [samples, vocabulary]."""
        own = timer.run("gemm", self._matrix, states)
        if self._group.size == 1:
            return own
        filled = F.pad(own, (0, self._rows - own.shape[1]))
        whole = timer.run("collective", self._group.all_gather, filled)
        return whole.view(self._group.size, len(states), -1).transpose(0, 1).flatten(1)[:, : self._size]


def vocabulary(arch: ModelArchitecture, weights: Weights, ranks: Ranks) -> tuple[Embedding | None, Head | None]:
    """What this rank's stage has of both; a tied matrix is in memory once."""
    group, size = ranks.tensor, arch.vocab_size
    rows = -(-size // group.size)
    cut = slice(group.index * rows, min((group.index + 1) * rows, size))
    tied = arch.tie_word_embeddings
    table = head = None
    if ranks.first or (ranks.last and tied):
        table = weights.matrix(-1, "embedding", size, arch.hidden_size, cut)
    if ranks.last:
        head = table if tied else weights.matrix(-1, "lm_head", size, arch.hidden_size, cut)
    embedding = Embedding(table, rows, group) if ranks.first and table is not None else None
    return embedding, None if head is None else Head(head, rows, size, group)
