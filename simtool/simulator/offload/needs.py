"""Needs: the objects that each visit (step, layer) needs or is predicted to need, and the tokens that go to each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError

I8 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Visit v = step * layers + layer needs objects[starts[v]:starts[v + 1]], each once.

    starts: int64[steps * layers + 1]. objects: int64[k]; needs ascend in a visit, predictions come likeliest first.
    tokens: int64[k], how many tokens go to each. layers: visits of a step. light: int64[k], another object of the layer
    that will do where the need's own is not in HBM (a copy in low precision), -1 for none; None: no need has any.
    """

    starts: I8
    objects: I8
    tokens: I8
    layers: int
    light: I8 | None = None

    @property
    def steps(self) -> int:
        """Whole steps."""
        return (len(self.starts) - 1) // self.layers


def expert_needs(experts: NDArray[np.int16], step: NDArray[np.integer], num_experts: int) -> Needs:
    """Needs of a routing trace's rows (RoutingTrace.experts, .step): object = layer * num_experts + expert.

    experts: int16[tokens, layers, any], -1 for none, so that a Prediction's rows are taken too. step: [tokens], any
    numbers; each that occurs is a step, in ascending order.
    """
    return _counted(experts, step, num_experts, by_rank=False)


def ranked_needs(experts: NDArray[np.int16], step: NDArray[np.integer], num_experts: int) -> Needs:
    """As `expert_needs`; a visit's objects come by how many rows name them, equal ones by their best place in a row."""
    return _counted(experts, step, num_experts, by_rank=True)


def _counted(experts: NDArray[np.int16], step: NDArray[np.integer], num_experts: int, *, by_rank: bool) -> Needs:
    if experts.ndim != 3 or len(experts) != len(step) or not experts.shape[1]:
        raise InputError(experts.shape, "experts are [tokens, layers, any], with a step for each token")
    if experts.size and (experts.min() < -1 or experts.max() >= num_experts):
        raise InputError(int(experts.max()), f"experts must be -1 (none) to {num_experts - 1}")
    layers, width = experts.shape[1], experts.shape[2]
    numbers, batch = np.unique(step, return_inverse=True)
    objects = np.arange(layers)[:, None] * num_experts + experts  # [tokens, layers, any]
    key = (batch[:, None, None] * (layers * num_experts) + objects)[experts >= 0]
    found, place, tokens = np.unique(key, return_inverse=True, return_counts=True)
    visit = found // num_experts
    if by_rank:
        best = np.full(len(found), width)
        np.minimum.at(best, place, np.broadcast_to(np.arange(width), experts.shape)[experts >= 0])
        order = np.lexsort((best, -tokens, visit))
        found, tokens = found[order], tokens[order]
    starts = np.searchsorted(visit, np.arange(len(numbers) * layers + 1))
    return Needs(
        starts=starts.astype(np.int64),
        objects=(found % (layers * num_experts)).astype(np.int64),
        tokens=tokens.astype(np.int64),
        layers=layers,
    )


def light_needs(experts: NDArray[np.int16], step: NDArray[np.integer], num_experts: int, first_rank: int) -> Needs:
    """As `expert_needs` on a `light_store`: experts that no token names before `first_rank` may be a light copy.

    HOBBIT (arXiv 2411.01433) goes by gate scores; a trace has their order, the first chosen first (rank 0). Objects:
    layer * 2 * num_experts + expert, and the light copy num_experts further on.
    """
    needs = expert_needs(experts, step, num_experts)
    layer, expert = np.divmod(needs.objects, num_experts)
    own = layer * 2 * num_experts + expert
    early = expert_needs(experts[:, :, :first_rank], step, num_experts)
    visit = np.repeat(np.arange(len(needs.starts) - 1), np.diff(needs.starts))
    early_visit = np.repeat(np.arange(len(early.starts) - 1), np.diff(early.starts))
    size = needs.layers * num_experts
    heavy = np.isin(visit * size + needs.objects, early_visit * size + early.objects)
    return replace(needs, objects=own, light=np.where(heavy, -1, own + num_experts))


def every_step(layers: int, steps: int) -> Needs:
    """One object a layer, needed in every step: whole layers that are streamed."""
    count = layers * steps
    return Needs(
        starts=np.arange(count + 1),
        objects=np.tile(np.arange(layers), steps),
        tokens=np.ones(count, np.int64),
        layers=layers,
    )


def no_needs(layers: int, steps: int) -> Needs:
    """Nothing anywhere: what is predicted where nothing is."""
    empty = np.zeros(0, np.int64)
    return Needs(starts=np.zeros(layers * steps + 1, np.int64), objects=empty, tokens=empty, layers=layers)


def next_visits(needs: Needs, objects: int) -> I8:
    """int64[k]: for each need the next visit that needs its object; a visit after the end where there is none."""
    end = len(needs.starts) - 1
    visit = np.repeat(np.arange(end), np.diff(needs.starts))
    order = np.lexsort((visit, needs.objects))
    following = np.full(len(order), end)
    same = needs.objects[order][1:] == needs.objects[order][:-1]
    following[:-1][same] = visit[order][1:][same]
    found = np.empty(len(order), np.int64)
    found[order] = following
    assert not len(needs.objects) or needs.objects.max() < objects
    return found
