"""LeastMemory: the least device memory that reaches a speed, with memory that no configuration does with less of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from simtool.errors import InfeasibleError, InputError
from simtool.plan import ExpertOffload
from simtool.planners.offload.bound import Bounds
from simtool.planners.offload.case import OffloadCase, OffloadProblem
from simtool.planners.offload.choices import Choices
from simtool.planners.offload.fastest import fastest_offload, tried_slots, way_bounds
from simtool.planners.offload.trial import Trial, try_choice
from simtool.units import GB


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastMemory:
    """best: reaches the target with its device_bytes. bound_bytes: of device memory; with less, nothing reaches it."""

    best: Trial
    bound_bytes: float

    @property
    def gap(self) -> float:
        """Of the memory found, what may be too much."""
        return max(0.0, 1.0 - self.bound_bytes / self.best.device_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    problem: OffloadProblem
    tokens_per_s: float

    def met(self, case: OffloadCase, seconds: float) -> bool:
        """Whether a walk of so many seconds is fast enough, and in time."""
        step_s = seconds / case.needs.steps
        return case.tokens >= self.tokens_per_s * seconds and not 0 < self.problem.max_step_s < step_s


def least_memory(
    problem: OffloadProblem,
    tokens_per_s: float,
    bounds: Bounds | None = None,
    choices: Choices | None = None,
    say: Callable[[str], None] | None = None,
) -> LeastMemory:
    """The least memory up to the problem's hbm_bytes. The bound's slots are bisected (more never make it slower), and
    so are those that are walked: speeds may have dents there, so that what is found reaches the target, and may not be
    the least that does.

    Raises InfeasibleError: "memory", "latency" as `fastest_offload`, "speed" where the target is not reached.
    """
    if tokens_per_s <= 0:
        raise InputError(tokens_per_s, "tokens a second to reach must be above 0")
    bounds, choices = bounds or Bounds(), choices or Choices()
    target = _Target(problem=problem, tokens_per_s=tokens_per_s)
    highest = way_bounds(problem, bounds)[0]
    lower = _lower_bounds(target, bounds)
    if not lower:
        detail = f"the {highest.binds} lets no configuration pass {highest.tokens_per_s:.3g} tok/s"
        raise InfeasibleError("speed", f"{detail}, and {tokens_per_s:.3g} are asked for", "a lower target")
    best: Trial | None = None
    for bytes_, case, way in lower:
        if best is not None and bytes_ >= best.device_bytes:
            break
        if say is not None:
            say(f"{case.weight_dtype}, batch {case.batch}, {way.policy}")
        found = _least_walked(target, case, way, choices, best)
        best = found or best
    if best is None:
        reached = fastest_offload(problem, bounds, choices).best.tokens_per_s
        detail = f"the fastest found reaches {reached:.3g} tok/s on {problem.hbm_bytes / GB:.0f} GB"
        detail += (
            f", and {tokens_per_s:.3g} are asked for; no proof beyond {highest.tokens_per_s:.3g} ({highest.binds})"
        )
        raise InfeasibleError("speed", detail, f"a target of {reached:.3g}")
    return LeastMemory(best=best, bound_bytes=lower[0][0])


def _lower_bounds(target: _Target, bounds: Bounds) -> list[tuple[float, OffloadCase, ExpertOffload]]:
    """Bytes with less of which a case does not reach the target under a way, least first; none for what never does."""
    problem, found = target.problem, []
    for case in problem.cases:
        for way in problem.ways:
            slots = _least_proven(target, case, way, bounds)
            if slots is not None:
                found.append((problem.device_bytes(case, slots), case, way))
    return sorted(found, key=lambda entry: entry[0])


def _least_proven(target: _Target, case: OffloadCase, way: ExpertOffload, bounds: Bounds) -> int | None:
    """Fewest experts in HBM with which the bound reaches the target; None: none that fit."""
    return _bisected(
        target.problem.room(case), lambda slots: target.met(case, bounds.least_time(case, way.policy, slots).seconds)
    )


def _least_walked(
    target: _Target, case: OffloadCase, way: ExpertOffload, choices: Choices, best: Trial | None
) -> Trial | None:
    """The smallest walk found that reaches the target with less memory than `best`."""
    problem, found = target.problem, dict[int, Trial]()

    def met(slots: int) -> bool:
        for choice, _ in choices.of(case, way, slots):
            trial = try_choice(case, choice, problem.device_bytes(case, choice.held))
            if target.met(case, trial.step_s * case.needs.steps):
                found[slots] = trial
                return True
        return False

    most = problem.room(case)
    if best is not None:
        most = min(most, int((best.device_bytes * problem.utilization - case.fixed_bytes) // case.expert_bytes))
    starts = tried_slots(way, most) if most >= 0 else []
    slots = next((least for start in starts if (least := _bisected(start, met)) is not None), None)
    trial = None if slots is None else found[slots]
    return trial if best is None or (trial is not None and trial.device_bytes < best.device_bytes) else None


def _bisected(most: int, met: Callable[[int], bool]) -> int | None:
    """The least of 0..most that meets it, where more always do; None if `most` does not."""
    if most < 0 or not met(most):
        return None
    low, high = -1, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if met(middle) else (middle, high)
    return high
