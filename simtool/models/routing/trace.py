"""RoutingTrace: which experts each token went to, in columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError

MOST_EXPERTS = 2**15 - 1  # int16


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingTrace:
    """One row a token, rows in order of (sequence, position, step).

    experts: int16[tokens, layers, top_k], 0..num_experts-1, no expert twice in one token and layer; the first is the
    one that was chosen first. sequence: int32[tokens], the request. position: int32[tokens], the token's place in it.
    step: int32[tokens], the engine iteration that computed it: rows of one step are one batch. prefill: bool[tokens].
    layers: the model's layer numbers of the columns (its mixture-of-experts layers). source: where it comes from.

    A token that was computed again (preemption) has a row for each time.
    """

    experts: NDArray[np.int16]
    sequence: NDArray[np.int32]
    position: NDArray[np.int32]
    step: NDArray[np.int32]
    prefill: NDArray[np.bool_]
    num_experts: int
    layers: tuple[int, ...]
    source: str = ""

    @property
    def tokens(self) -> int:
        """Rows."""
        return len(self.sequence)

    @property
    def top_k(self) -> int:
        """Experts a token and layer."""
        return int(self.experts.shape[2])

    def rows_at(self, sequence: NDArray[np.int32], position: NDArray[np.int32]) -> NDArray[np.int64]:
        """Rows of tokens named by request and place, int64[n]; of a token computed twice, the first.

        This is how a simulator with batches of its own reads a trace. Raises InputError for a token that it lacks.
        """
        width = int(max(self.position.max(initial=0), np.max(position, initial=0))) + 1
        key = self.sequence.astype(np.int64) * width + self.position
        wanted = np.asarray(sequence, np.int64) * width + position
        rows = np.searchsorted(key, wanted)
        found = rows < len(key)
        found[found] = key[rows[found]] == wanted[found]
        if not found.all():
            lacking = int(np.flatnonzero(~found)[0])
            place = f"token {np.asarray(position)[lacking]} of request {np.asarray(sequence)[lacking]}"
            raise InputError(place, "is not in the routing trace", "record or sample a longer one")
        return rows


def make_trace(
    *,
    experts: NDArray[np.int16],
    sequence: NDArray[np.int32],
    position: NDArray[np.int32],
    step: NDArray[np.int32],
    prefill: NDArray[np.bool_],
    num_experts: int,
    layers: tuple[int, ...],
    source: str = "",
) -> RoutingTrace:
    """A trace with its rows put in order. Columns as RoutingTrace's; they are not checked (a reader has done so)."""
    order = np.lexsort((step, position, sequence))
    return RoutingTrace(
        experts=np.ascontiguousarray(experts[order], np.int16),
        sequence=np.ascontiguousarray(sequence[order], np.int32),
        position=np.ascontiguousarray(position[order], np.int32),
        step=np.ascontiguousarray(step[order], np.int32),
        prefill=np.ascontiguousarray(prefill[order], np.bool_),
        num_experts=num_experts,
        layers=layers,
        source=source,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRows:
    """Rows of a trace by step. order: int64[tokens]; step s is order[starts[s]:starts[s+1]]; numbers: int32[steps]."""

    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    numbers: NDArray[np.int32]

    def __len__(self) -> int:
        """Steps that have any token."""
        return len(self.numbers)

    def __getitem__(self, index: int) -> NDArray[np.int64]:
        """Rows of the index-th step, int64[batch]."""
        return self.order[self.starts[index] : self.starts[index + 1]]


def step_rows(trace: RoutingTrace, *, prefill: bool = True) -> StepRows:
    """The trace's rows by step, steps ascending, without prompts where `prefill` is False."""
    order = np.argsort(trace.step, kind="stable")
    if not prefill:
        order = order[~trace.prefill[order]]
    numbers, starts = np.unique(trace.step[order], return_index=True)
    return StepRows(order=order, starts=np.append(starts, len(order)).astype(np.int64), numbers=numbers)


def needed(experts: NDArray[np.int16], num_experts: int) -> NDArray[np.bool_]:
    """What a batch needs of each layer, bool[layers, experts]; experts: its rows [batch, layers, any], -1 for none.

    The experts of step s at layer l are `needed(trace.experts[step_rows(trace)[s]], n)[l]`.
    """
    mask = np.zeros((experts.shape[1], num_experts + 1), np.bool_)  # -1 is the column after the last
    mask[np.arange(experts.shape[1])[:, None], experts] = True
    return mask[:, :num_experts]


def loads(experts: NDArray[np.int16], batch: NDArray[np.int64], batches: int, num_experts: int) -> NDArray[np.int64]:
    """Tokens of each expert in each batch, int64[batches, layers, experts].

    experts: int16[tokens, layers, any], -1 for none. batch: int64[tokens], 0..batches-1. Time and memory are
    tokens x layers x top_k and batches x layers x experts.
    """
    layers = experts.shape[1]
    place = (batch[:, None, None] * layers + np.arange(layers)[:, None]) * (num_experts + 1) + np.where(
        experts < 0, num_experts, experts
    )
    counts = np.bincount(place.ravel(), minlength=batches * layers * (num_experts + 1))
    return counts.reshape(batches, layers, num_experts + 1)[:, :, :num_experts]


def step_loads(trace: RoutingTrace, rows: StepRows) -> NDArray[np.int64]:
    """Tokens of each expert in each step, int64[steps, layers, experts]: `> 0` is what each step needs."""
    batch = np.repeat(np.arange(len(rows)), np.diff(rows.starts))
    return loads(trace.experts[rows.order], batch, len(rows), trace.num_experts)
