"""Choices: how a way's slots may be split over layers; curves are walked once for each way and batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from simtool.plan import ExpertOffload
from simtool.planners.offload.case import PINNED, OffloadCase
from simtool.planners.offload.hits import F8, curve_slots, staging_of, walked_curve
from simtool.planners.offload.split import SlotSplit, even_split, pinned_split, split_by_curves, with_rest
from simtool.planners.offload.trial import Choice


class Choices:
    """The choices of cases under ways."""

    def __init__(self) -> None:
        self._curves: dict[tuple[int, str, int], tuple[list[int], F8]] = {}
        self._held: list[OffloadCase] = []  # so that no other case takes its identity

    def of(self, case: OffloadCase, way: ExpertOffload, held: int) -> Iterator[tuple[Choice, SlotSplit | None]]:
        """Splits of `held` experts in HBM that are worth a walk: the proven one, an even one. None if none can be."""
        staging = staging_of(case, way, held)
        total = min(held - staging, case.most_slots)
        if held < _least(case, way) + staging:
            return
        seen: set[tuple[int, ...]] = set()
        for slots, split in self._splits(case, way, total):
            if slots not in seen:
                seen.add(slots)
                yield (
                    Choice(weight_dtype=case.weight_dtype, batch=case.batch, way=way, slots=slots, staging=staging),
                    split,
                )

    def _splits(
        self, case: OffloadCase, way: ExpertOffload, total: int
    ) -> Iterator[tuple[tuple[int, ...], SlotSplit | None]]:
        if way.policy in PINNED:
            split = pinned_split(case.uses, total)
            yield split.slots, split
        elif way.policy != "predicted-path" and total < case.most_slots:
            slots, values = self._curve(case, way)
            split = split_by_curves(values, slots, total)
            yield with_rest(split.slots, total, case.experts), split
        yield even_split(case.layers, total, case.experts), None

    def _curve(self, case: OffloadCase, way: ExpertOffload) -> tuple[list[int], F8]:
        key = (id(case.needs), way.policy, way.window)
        if key not in self._curves:
            self._held.append(case)
            slots = curve_slots(case.experts, 1)
            # no split may count on hits that fewer slots had too
            self._curves[key] = slots, np.maximum.accumulate(walked_curve(case, way, slots), axis=1)
        return self._curves[key]


def _least(case: OffloadCase, way: ExpertOffload) -> int:
    """Slots that the policy cannot do without, staging apart."""
    if way.policy in PINNED:
        return 0
    return 1 if way.policy == "predicted-path" else case.layers
