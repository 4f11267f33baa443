"""OffloadCase: one weight dtype and batch, with all that a walk of it needs; OffloadProblem: those to choose among."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.plan import ExpertOffload, OffloadPolicyName
from simtool.simulator.offload.needs import Needs
from simtool.simulator.offload.prices import Prices

PINNED: frozenset[OffloadPolicyName] = frozenset({"on-demand", "static-cpu", "static-cheaper"})  # residents never leave
ON_CPU: frozenset[OffloadPolicyName] = frozenset({"static-cpu", "static-cheaper"})  # compute missing experts there
AHEAD: frozenset[OffloadPolicyName] = frozenset({"speculative", "predicted-path"})  # load before the gate has chosen
PLANNED: frozenset[OffloadPolicyName] = PINNED | AHEAD | {"lru", "lfu"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OffloadCase:
    """`batch` requests that decode together with weights of one dtype.

    layers, experts: of the model's mixtures; top_k: experts that a token chooses. fixed_bytes: of HBM beside experts
    (other weights, KV cache, activations, CUDA graphs). uses: [layers, experts], needs of each expert that routing
    statistics lead to expect, of any scale. prices: by policy, with one expert_s row and equal load_s. guesses: what a
    way that loads ahead is told, by (policy, window).
    """

    weight_dtype: str
    batch: int
    layers: int
    experts: int
    top_k: int
    expert_bytes: float
    fixed_bytes: float
    needs: Needs
    uses: NDArray[np.float64]
    prices: Mapping[str, Prices]
    guesses: Mapping[tuple[str, int], Needs]

    @property
    def most_slots(self) -> int:
        """All experts."""
        return self.layers * self.experts

    @property
    def tokens(self) -> int:
        """Of the whole walk."""
        return self.batch * self.needs.steps


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OffloadProblem:
    """Every case under every way (policy, window, recall; its slots and staging are to be chosen).

    hbm_bytes: device memory, of which `utilization` is the engine's. max_step_s: the longest mean decode step, 0: any.
    """

    cases: tuple[OffloadCase, ...]
    ways: tuple[ExpertOffload, ...]
    hbm_bytes: float
    utilization: float = 0.9
    max_step_s: float = 0.0

    def __post_init__(self) -> None:
        """Raise InputError for policies that are not planned and for nothing to choose among."""
        for way in self.ways:
            if way.policy not in PLANNED:
                raise InputError(way.policy, "is not planned", ", ".join(sorted(PLANNED)))
        if not self.cases or not self.ways:
            raise InputError("cases, ways", "must not be empty")

    def room(self, case: OffloadCase) -> int:
        """Experts that fit beside the fixed bytes, at most all twice (once on their way); below 0: not even those."""
        left = self.utilization * self.hbm_bytes - case.fixed_bytes
        return min(int(left // case.expert_bytes), 2 * case.most_slots)

    def device_bytes(self, case: OffloadCase, slots: int) -> float:
        """Device memory that an engine with so many experts in HBM needs."""
        return (case.fixed_bytes + slots * case.expert_bytes) / self.utilization
