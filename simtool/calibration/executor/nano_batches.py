"""Nano-batches: one step cut into parts that run layer by layer in turns, on a GPU on a stream each."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

import torch

from simtool.calibration.executor.batch import Slot, StepBatch
from simtool.calibration.executor.inputs import Layout, StepInputs, make_inputs
from simtool.calibration.executor.streams import Streams
from simtool.plan import Overlap


def cut(batches: Sequence[StepBatch], overlap: Overlap) -> list[list[StepBatch]]:
    """The step's parts, each with one batch a data-parallel rank; one part where the overlap leaves the step whole."""
    tokens = max(batch.tokens for batch in batches)
    prompts = any(batch.prefills for batch in batches)
    if len(overlap.nano_batches) < 2 or tokens < overlap.least_tokens(prompts=prompts):
        return [list(batches)]
    cuts = [
        list(zip(_shared(batch.decodes, overlap), _shared(batch.prefills, overlap), strict=True)) for batch in batches
    ]
    parts = [
        [StepBatch(decodes=decodes, prefills=prefills) for decodes, prefills in part]
        for part in zip(*cuts, strict=True)
    ]
    return [part for part in parts if any(batch.slots for batch in part)] or [list(batches)]


def joined_inputs(parts: Sequence[Sequence[StepBatch]], rank: int, layout: Layout) -> StepInputs:
    """Inputs of a data-parallel rank: rows part after part, samples in the order of the uncut step."""
    made = [make_inputs(part[rank], layout, max(batch.tokens for batch in part)) for part in parts]
    if len(made) == 1:
        return made[0]
    decodes, prefills, start = [], [], 0
    for one in made:
        decodes.append(one.sampled[one.sampled < one.decodes] + start)
        prefills.append(one.sampled[one.sampled >= one.decodes] + start)
        start += one.tokens
    return replace(
        made[0],
        ids=torch.cat([one.ids for one in made]),
        sampled=torch.cat(decodes + prefills),
        widest=sum(one.widest for one in made),
        parts=tuple(made),
    )


def _shared(slots: tuple[Slot, ...], overlap: Overlap) -> list[tuple[Slot, ...]]:
    """The slots cut by the overlap's shares, in order."""
    before = [round(total * len(slots)) for total in accumulate(overlap.nano_batches[:-1])]
    return [slots[first:last] for first, last in pairwise([0, *before, len(slots)])]


class Turns(Streams):
    """Streams of the parts, whose layers come in turns."""

    def turn(self, part: int) -> Any:
        """Where the part's layer runs: after the same layer of the part before, which may fill pages that it reads."""
        if not self.on:
            return nullcontext()
        if part:
            self.stream(part).wait_stream(self.stream(part - 1))
        return torch.cuda.stream(self.stream(part))
