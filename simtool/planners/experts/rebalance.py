"""When does a new placement pay? Expert bytes over links against time won in every step, window by window.

Loads drift, so that a placement made for one window is worse in the next. Given some placements, which of them to have
in each window is a shortest path, and found exactly by dynamic programming. A rule with a threshold would know only
the next window; the path knows that a move which does not pay now may pay over the windows to come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.hardware.links import Link
from simtool.planners.experts.exchange import gpu_loads
from simtool.planners.experts.problem import ExpertProblem

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Steps with the same expected loads. loads: [layers, experts] of one step."""

    loads: Floats
    steps: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebalancing:
    """chosen: the placement of each window, by its number. seconds: of experts and moves in all windows.

    stay_s: with placement 0 throughout. follow_s: with the fastest placement of each window, whatever the moves cost.
    """

    chosen: tuple[int, ...]
    seconds: float
    moving_s: float
    stay_s: float
    follow_s: float


def plan_rebalancing(
    placements: Sequence[Places], windows: Sequence[Window], moving_s: Floats, load_s: float
) -> Rebalancing:
    """The cheapest way through the windows; placement 0 is there at first, and a move comes before a window's steps.

    placements: each [layers, gpus, slots]. moving_s: [placements, placements], seconds in which no step runs when one
    follows the other (`move_seconds`). load_s: seconds of a GPU for a unit of load; a layer waits for its fullest GPU.
    """
    count = len(placements)
    if not count or not windows or moving_s.shape != (count, count):
        raise InputError(f"{count} placements, moves of shape {moving_s.shape}", "do not go together")
    if load_s < 0 or not (moving_s >= 0).all():
        raise InputError("seconds", "must not be below 0")
    run = run_seconds(placements, windows, load_s)
    chosen, follow = cheapest_path(run, moving_s), run.argmin(axis=1).tolist()
    moved_s = moves_s(chosen, moving_s)
    return Rebalancing(
        chosen=chosen,
        seconds=float(run[np.arange(len(chosen)), list(chosen)].sum()) + moved_s,
        moving_s=moved_s,
        stay_s=float(run[:, 0].sum()),
        follow_s=float(run.min(axis=1).sum()) + moves_s(follow, moving_s),
    )


def run_seconds(placements: Sequence[Places], windows: Sequence[Window], load_s: float) -> Floats:
    """[windows, placements]: seconds of the experts of all of a window's steps, without moves."""
    return np.array(
        [[load_s * window.steps * step_load(held, window.loads) for held in placements] for window in windows]
    )


def cheapest_path(run_s: Floats, moving_s: Floats) -> tuple[int, ...]:
    """The placement of each window; run_s: [windows, placements], moving_s: [placements, placements], 0 at first."""
    least, came = moving_s[0] + run_s[0], []
    for row in run_s[1:]:
        through = least[:, None] + moving_s
        came.append(through.argmin(axis=0))
        least = through.min(axis=0) + row
    chosen = [int(least.argmin())]
    for before in reversed(came):
        chosen.append(int(before[chosen[-1]]))
    return tuple(reversed(chosen))


def moves_s(chosen: Sequence[int], moving_s: Floats) -> float:
    """Seconds of all moves of a path that begins at placement 0."""
    return float(sum(moving_s[one, other] for one, other in zip([0, *chosen[:-1]], chosen, strict=True)))


def break_even_steps(held: Places, new: Places, loads: Floats, moving_s: float, load_s: float) -> float:
    """Steps of `loads` after which the move from `held` to `new` has paid; infinite where the new one is no faster."""
    gain = load_s * (step_load(held, loads) - step_load(new, loads))
    return moving_s / gain if gain > 0 else float("inf")


def step_load(held: Places, loads: Floats) -> float:
    """Summed over layers, the load of the fullest GPU; held: [layers, gpus, slots]."""
    return float(sum(gpu_loads(load, one).max() for load, one in zip(loads, held, strict=True)))


def move_seconds(problem: ExpertProblem, before: Places, after: Places, near: Link, far: Link) -> float:
    """Seconds until every GPU has the experts of all layers that it lacks; both: [layers, gpus, slots].

    An expert comes from a GPU of the same node where one has it, over `near`, otherwise over `far`; of several that
    have it, from the one that has sent least. Each GPU sends and receives at its link's rate, both links at once.
    """
    node = np.repeat(np.arange(problem.nodes), problem.gpus // problem.nodes)
    sent, got = np.zeros((2, problem.gpus)), np.zeros((2, problem.gpus))
    for old, new in zip(before, after, strict=True):
        for gpu in range(problem.gpus):
            for expert in sorted(set(new[gpu].tolist()) - set(old[gpu].tolist())):
                owners = np.flatnonzero((old == expert).any(axis=1))
                if not len(owners):
                    raise InputError(f"expert {expert}", "is nowhere in the placement before")
                beside = owners[node[owners] == node[gpu]]
                link, owners = (0, beside) if len(beside) else (1, owners)
                sent[link, owners[np.argmin(sent[link, owners])]] += problem.expert_bytes
                got[link, gpu] += problem.expert_bytes
    busiest = np.maximum(sent, got).max(axis=1)
    return max(_transfer_s(float(most), link) for most, link in zip(busiest, (near, far), strict=True))


def _transfer_s(size: float, link: Link) -> float:
    return size / link.bytes_per_s + link.latency_s if size else 0.0
