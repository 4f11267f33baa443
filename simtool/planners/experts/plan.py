"""ExpertPlan: every layer of a problem placed and checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.planners.experts.exchange import gpu_loads
from simtool.planners.experts.layer import LayerPlan, place_layer
from simtool.planners.experts.problem import ExpertProblem
from simtool.planners.experts.verify import check_expert_placement
from simtool.planners.schedule.progress import Effort

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
LIMIT = 2.0  # deterministic seconds a layer, several wall seconds each
NEAR = 1e-3  # of the bound: balance that no engine would notice


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertPlan:
    """A problem and its layers' plans."""

    problem: ExpertProblem
    layers: tuple[LayerPlan, ...]

    @property
    def phy2log(self) -> Places:
        """[layers, gpus · slots]: the expert of each slot, GPU by GPU."""
        return np.stack([layer.held.ravel() for layer in self.layers])

    @property
    def greedy_phy2log(self) -> Places:
        """The same of the greedy."""
        return np.stack([layer.greedy.ravel() for layer in self.layers])

    def loads(self, phy2log: Places) -> Floats:
        """[layers, gpus]: load of each GPU under a placement."""
        pairs = zip(self.problem.loads, phy2log, strict=True)
        return np.stack([gpu_loads(load, row.reshape(self.problem.gpus, -1)) for load, row in pairs])

    @property
    def gap(self) -> float:
        """Of the summed highest loads of all layers (each layer is a step that waits for its fullest GPU)."""
        found = sum(layer.load.objective for layer in self.layers)
        return float((found - sum(layer.load.bound for layer in self.layers)) / found)


def place_experts(
    problem: ExpertProblem,
    effort: Effort | None = None,
    near: float = NEAR,
    progress: Callable[[str], None] | None = None,
) -> ExpertPlan:
    """Place every layer: least highest GPU load, then least crossing load, then least bytes moved.

    effort: limits of a layer (`LIMIT` deterministic seconds and two workers by default; repeats exactly while no wall
    limit is set). near: a layer's search ends at this relative distance to its bound. Never worse than the greedy.
    """
    layers = []
    for number in range(problem.layers):
        found = place_layer(problem, number, effort or Effort(limit=LIMIT, workers=2), near)
        check_expert_placement(problem, number, found.held.tolist(), found.measures)
        layers.append(found)
        if progress is not None:
            progress(f"{number + 1} of {problem.layers} layers")
    return ExpertPlan(problem=problem, layers=tuple(layers))
