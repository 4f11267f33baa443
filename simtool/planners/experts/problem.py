"""ExpertProblem: what is to be placed, on what, and what a placement is measured by."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


_MOST = 2**16  # GPUs, slots of one, nodes, groups
_MOST_LOAD = 1e15  # sums of them stay exact to a token


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertProblem:
    """Loads of experts, to be held by GPUs of `slots` experts each, every slot in use.

    loads: [layers, experts], tokens (or other work) an expert gets, split equally over the expert's replicas. nodes:
    equal shares of the GPUs, in their order. groups: the experts are cut in order into so many equal groups; with
    `hierarchical` a group lives on one node and every node has equally many, as group-limited routing wants it.
    sources: [nodes, layers, experts], the part of `loads` that comes from tokens of each node (None: each an equal
    part). present: [layers, gpus · slots], the experts now in the slots (None: nothing is). expert_bytes: of one
    expert's weights. load_slack: highest loads up to so much (relative) above the best one found count as equal, so
    that traffic and moves may decide.

    Raises InputError where these do not go together.
    """

    loads: Floats
    gpus: int
    slots: int
    nodes: int = 1
    groups: int = 1
    hierarchical: bool = False
    sources: Floats | None = None
    present: Places | None = None
    expert_bytes: float = 0.0
    load_slack: float = 0.0

    def __post_init__(self) -> None:
        if self.loads.ndim != 2 or 0 in self.loads.shape:
            raise InputError(f"loads of shape {self.loads.shape}", "are not layers by experts")
        if not np.isfinite(self.loads).all() or (self.loads < 0).any() or (self.loads > _MOST_LOAD).any():
            raise InputError("loads", f"must be from 0 to {_MOST_LOAD:g}", "tokens or any other count of work")
        if not (self.loads.sum(axis=1) > 0).all():
            raise InputError("loads", "must not be all 0 in a layer", "leave the layer out")
        for name in ("gpus", "slots", "nodes", "groups"):
            if not 1 <= getattr(self, name) <= _MOST:
                raise InputError(f"{name} {getattr(self, name)}", f"must be from 1 to {_MOST:,}")
        if self.gpus % self.nodes:
            raise InputError(f"{self.gpus} GPUs", f"are not {self.nodes} equal nodes", "nodes must divide GPUs")
        if self.replicas < self.experts:
            hint = f"give {-(-self.experts // self.gpus) * self.gpus} replicas or more"
            raise InputError(f"{self.replicas} slots", f"do not hold {self.experts} experts", hint)
        for name in ("expert_bytes", "load_slack"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} {getattr(self, name):g}", "must be a number from 0")
        self._check_groups()
        self._check_arrays()

    @property
    def layers(self) -> int:
        """Layers; each is placed by itself."""
        return int(self.loads.shape[0])

    @property
    def experts(self) -> int:
        """Experts a layer."""
        return int(self.loads.shape[1])

    @property
    def replicas(self) -> int:
        """Slots in all."""
        return self.gpus * self.slots

    def source(self, layer: int) -> Floats:
        """[nodes, experts]: load by the node that its tokens come from."""
        if self.sources is not None:
            return np.asarray(self.sources[:, layer], np.float64)
        return np.tile(self.loads[layer] / self.nodes, (self.nodes, 1))

    def now(self, layer: int) -> Places | None:
        """[gpus, slots]: the experts that are there now."""
        return None if self.present is None else self.present[layer].reshape(self.gpus, self.slots)

    def _check_groups(self) -> None:
        if self.experts % self.groups:
            raise InputError(f"{self.experts} experts", f"are not {self.groups} equal groups")
        if self.hierarchical and self.groups % self.nodes:
            hint = "give groups that the nodes divide, or place globally"
            raise InputError(f"{self.groups} groups", f"do not spread evenly over {self.nodes} nodes", hint)

    def _check_arrays(self) -> None:
        sources, present = self.sources, self.present
        if sources is not None:
            if sources.shape != (self.nodes, *self.loads.shape) or not (sources >= 0).all():
                raise InputError(f"sources of shape {sources.shape}", "are not nodes by layers by experts, 0 or more")
            if not np.allclose(sources.sum(axis=0), self.loads, rtol=1e-6, atol=1e-9 * self.loads.max()):
                raise InputError("sources", "do not add up to the loads")
        if present is not None and (
            present.shape != (self.layers, self.replicas) or present.min() < 0 or present.max() >= self.experts
        ):
            rule = f"is not {self.layers} layers of {self.replicas} slots with experts 0 … {self.experts - 1}"
            raise InputError(f"present placement of shape {present.shape}", rule)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """What a layer's placement is judged by, in this order: the highest load of a GPU, load that crosses nodes, bytes
    that have to be sent to GPUs which do not hold the expert now."""

    highest_load: float
    crossing_load: float
    moved_bytes: float


def measures(problem: ExpertProblem, layer: int, held: Places) -> Measures:
    """held: [gpus, slots]. A token's copy for an expert goes to each of its replicas with equal chance."""
    counts = np.bincount(held.ravel(), minlength=problem.experts)
    shares = problem.loads[layer] / np.maximum(counts, 1)
    here = problem.source(layer) / np.maximum(counts, 1)
    node = np.repeat(np.arange(problem.nodes), problem.gpus // problem.nodes)
    local = sum(float(here[node[gpu], row].sum()) for gpu, row in enumerate(held))
    return Measures(
        highest_load=float(shares[held].sum(axis=1).max()),
        crossing_load=max(0.0, float(problem.source(layer).sum()) - local),
        moved_bytes=problem.expert_bytes * moved_experts(held, problem.now(layer)),
    )


def moved_experts(held: Places, now: Places | None) -> int:
    """How many (GPU, expert) are wanted and not there; 0 where nothing is known to be there."""
    if now is None:
        return 0
    return sum(len(set(row.tolist()) - set(old.tolist())) for row, old in zip(held, now, strict=True))
