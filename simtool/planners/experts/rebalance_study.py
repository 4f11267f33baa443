"""RebalanceStudy: loads over time, the placements that fit each window, and what ways of moving between them cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.hardware.links import Link
from simtool.planners.experts.plan import place_experts
from simtool.planners.experts.problem import ExpertProblem
from simtool.planners.experts.rebalance import (
    Window,
    break_even_steps,
    cheapest_path,
    move_seconds,
    moves_s,
    run_seconds,
    step_load,
)
from simtool.planners.schedule.progress import Effort

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
MOST_WINDOWS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A placement for each window, by its number, and what that costs: seconds of experts and moves in all windows.

    every: windows between its moves where it moves by the clock, else 0.
    """

    name: str
    chosen: tuple[int, ...]
    seconds: float
    moving_s: float
    moves: int
    every: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RebalanceStudy:
    """placements: each [layers, gpus, slots]; 0 is there at first, `own[w]` is the one planned for window w's loads.

    run_s: [windows, placements], seconds of experts. moving_s: [placements, placements]. load_s: of a unit of load on
    a GPU. schedules: stay, by the clock from the loads before, at once with each window, and the cheapest of all ways,
    which knows all windows (so that it is a bound for rules that do not).
    """

    problem: ExpertProblem
    windows: tuple[Window, ...]
    placements: tuple[Places, ...]
    own: tuple[int, ...]
    run_s: Floats
    moving_s: Floats
    load_s: float
    schedules: tuple[Schedule, ...]

    @property
    def stay(self) -> Schedule:
        """Placement 0 throughout."""
        return self.schedules[0]

    @property
    def best(self) -> Schedule:
        """The cheapest way through the windows."""
        return self.schedules[-1]

    def over_mean(self, window: int, placement: int) -> float:
        """Summed over layers, the highest GPU load over the mean GPU's."""
        loads = self.windows[window].loads
        return step_load(self.placements[placement], loads) * self.problem.gpus / float(loads.sum())

    def move_before(self, window: int) -> tuple[float, float]:
        """(seconds, steps until it has paid) of moving to the window's own placement from what `best` had before it."""
        before, own = (0, *self.best.chosen)[window], self.own[window]
        seconds = float(self.moving_s[before, own])
        loads = self.windows[window].loads
        pair = (self.placements[before], self.placements[own])
        return seconds, break_even_steps(*pair, loads, seconds, self.load_s) if before != own else 0.0


def study_rebalancing(
    problem: ExpertProblem,
    windows: Sequence[Window],
    links: tuple[Link, Link],
    balanced_s: float,
    effort: Effort,
    progress: Callable[[str], None] | None = None,
) -> RebalanceStudy:
    """Plan a placement for every window, each from the one before, and find when to have which.

    problem: its loads are not used; its `present` placement is there at first (None: the first window's own). links: in
    a node and between nodes. balanced_s: seconds that all layers' experts take in a step of the mean window when every
    GPU has the same load. Raises InputError.
    """
    if not 1 <= len(windows) <= MOST_WINDOWS:
        raise InputError(f"{len(windows)} windows", f"must be from 1 to {MOST_WINDOWS}")
    if not 0 < balanced_s < float("inf"):
        raise InputError(f"{balanced_s:g} s", "must be seconds above 0 that a step's experts take")
    placements, own = _placed(problem, windows, effort, progress)
    steps = sum(window.steps for window in windows)
    mean = sum(window.steps * float(window.loads.sum()) for window in windows) / steps / problem.gpus
    load_s = balanced_s / mean
    run_s = run_seconds(placements, windows, load_s)
    moving_s = np.array([[move_seconds(problem, one, other, *links) for other in placements] for one in placements])
    return RebalanceStudy(
        problem=problem,
        windows=tuple(windows),
        placements=tuple(placements),
        own=tuple(own),
        run_s=run_s,
        moving_s=moving_s,
        load_s=load_s,
        schedules=_schedules(own, run_s, moving_s),
    )


def _placed(
    problem: ExpertProblem, windows: Sequence[Window], effort: Effort, progress: Callable[[str], None] | None
) -> tuple[list[Places], list[int]]:
    """All placements, and the number of each window's own."""
    shape = (problem.layers, problem.gpus, problem.slots)
    placements = [] if problem.present is None else [problem.present.reshape(shape)]
    own, now = [], problem.present
    for number, window in enumerate(windows, 1):
        plan = place_experts(replace(problem, loads=window.loads, present=now), effort)
        now = plan.phy2log
        same = [at for at, held in enumerate(placements) if (held.reshape(now.shape) == now).all()]
        own.append(same[0] if same else len(placements))
        if not same:
            placements.append(now.reshape(shape))
        if progress is not None:
            progress(f"{number} of {len(windows)} windows")
    return placements, own


def _schedules(own: list[int], run_s: Floats, moving_s: Floats) -> tuple[Schedule, ...]:
    """Stay, every 1, 2, 4, … windows, at once with each, the cheapest."""
    count = len(own)

    def priced(name: str, chosen: Sequence[int], every: int = 0) -> Schedule:
        return Schedule(
            name=name,
            chosen=tuple(chosen),
            seconds=float(run_s[np.arange(count), list(chosen)].sum()) + moves_s(chosen, moving_s),
            moving_s=moves_s(chosen, moving_s),
            moves=int(np.count_nonzero(np.diff([0, *chosen]))),
            every=every,
        )

    found = [priced("stay", [0] * count)]
    every = 1
    while every < count:
        late = [0 if window < every else own[window // every * every - 1] for window in range(count)]
        found.append(
            priced(
                f"every {every} windows, from the one before" if every > 1 else "every window, from the one before",
                late,
                every,
            )
        )
        every *= 2
    found.append(priced("with each window, known ahead", own))
    return (*found, priced("cheapest, all known ahead", cheapest_path(run_s, moving_s)))
