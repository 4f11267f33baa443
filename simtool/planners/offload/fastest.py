"""FastestOffload: the most tokens a second under a latency limit, with a bound on what any configuration reaches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from simtool.errors import InfeasibleError
from simtool.plan import ExpertOffload
from simtool.planners.offload.bound import Binding, Bounds
from simtool.planners.offload.case import ON_CPU, OffloadCase, OffloadProblem
from simtool.planners.offload.choices import Choices
from simtool.planners.offload.split import SlotSplit
from simtool.planners.offload.trial import Trial, try_choice
from simtool.units import GB

_SHARES = (1.0, 0.75, 0.5, 0.25, 0.125, 0.0)  # of the room, that are tried for experts


@dataclass(frozen=True, slots=True, kw_only=True)
class WayBound:
    """No configuration of a case under a policy is faster. binds: the resource that says so."""

    weight_dtype: str
    batch: int
    policy: str
    tokens_per_s: float
    step_s: float
    binds: Binding


@dataclass(frozen=True, slots=True, kw_only=True)
class FastestOffload:
    """best, and the split that its slots come from (None: an even one). trials: all that were walked, fastest first.

    bounds: of every case and policy, highest first; the first one bounds the whole space.
    """

    best: Trial
    split: SlotSplit | None
    trials: tuple[Trial, ...]
    bounds: tuple[WayBound, ...]

    @property
    def bound_tokens_per_s(self) -> float:
        """Over all configurations that may keep the latency limit."""
        return max(self.bounds[0].tokens_per_s, self.best.tokens_per_s * (1 - 1e-9))

    @property
    def gap(self) -> float:
        """Of the bound, what was not reached."""
        return max(0.0, 1.0 - self.best.tokens_per_s / self.bound_tokens_per_s)


def fastest_offload(
    problem: OffloadProblem,
    bounds: Bounds | None = None,
    choices: Choices | None = None,
    say: Callable[[str], None] | None = None,
) -> FastestOffload:
    """Walk what may be best, cases and policies with high bounds first. bounds, choices: those of a question before.

    Raises InfeasibleError: "memory" where no case fits, "latency" where none keeps the limit; what binds is named.
    """
    proven = way_bounds(problem, bounds or Bounds())
    choices = choices or Choices()
    cases = {(case.weight_dtype, case.batch): case for case in problem.cases}
    found: list[tuple[Trial, SlotSplit | None]] = []
    best_s = 0.0
    for bound in proven:
        if bound.tokens_per_s <= best_s:
            break  # bounds descend
        case = cases[bound.weight_dtype, bound.batch]
        for way in (one for one in problem.ways if one.policy == bound.policy):
            if say is not None:
                say(f"{bound.weight_dtype}, batch {bound.batch}, {way.policy}")
            found += _tried(problem, case, way, choices)
        best_s = max((one.tokens_per_s for one, _ in found if _in_time(problem, one)), default=0.0)
    kept = sorted((pair for pair in found if _in_time(problem, pair[0])), key=lambda pair: -pair[0].tokens_per_s)
    if not kept:
        raise _too_slow(problem, proven, min((one.step_s for one, _ in found), default=0.0))
    rest = sorted((one for one, _ in found), key=lambda one: -one.tokens_per_s)
    return FastestOffload(best=kept[0][0], split=kept[0][1], trials=tuple(rest), bounds=proven)


def way_bounds(problem: OffloadProblem, bounds: Bounds) -> tuple[WayBound, ...]:
    """Of every case and policy that fit and may keep the latency limit, highest first. Raises as `fastest_offload`."""
    fitting = [case for case in problem.cases if problem.room(case) >= 0]
    if not fitting:
        raise _too_large(problem)
    found = []
    for case in fitting:
        for policy in dict.fromkeys(way.policy for way in problem.ways):
            least = bounds.least_time(case, policy, problem.room(case))
            found.append(
                WayBound(
                    weight_dtype=case.weight_dtype,
                    batch=case.batch,
                    policy=policy,
                    tokens_per_s=case.tokens / least.seconds,
                    step_s=least.seconds / case.needs.steps,
                    binds=least.binds,
                )
            )
    kept = [one for one in found if not problem.max_step_s or one.step_s <= problem.max_step_s]
    if not kept:
        raise _too_slow(problem, tuple(found), 0.0)
    return tuple(sorted(kept, key=lambda one: -one.tokens_per_s))


def tried_slots(way: ExpertOffload, room: int) -> list[int]:
    """Experts in HBM to try: all that fit; less too beside a CPU, since a full device may be the slower of the two."""
    return list(dict.fromkeys(int(share * room) for share in (_SHARES if way.policy in ON_CPU else (1.0,))))


def _tried(
    problem: OffloadProblem, case: OffloadCase, way: ExpertOffload, choices: Choices
) -> list[tuple[Trial, SlotSplit | None]]:
    pairs = [pair for slots in tried_slots(way, problem.room(case)) for pair in choices.of(case, way, slots)]
    return [(try_choice(case, one, problem.device_bytes(case, one.held)), split) for one, split in pairs]


def _in_time(problem: OffloadProblem, trial: Trial) -> bool:
    return not problem.max_step_s or trial.step_s <= problem.max_step_s


def _too_large(problem: OffloadProblem) -> InfeasibleError:
    least = min(problem.device_bytes(case, 0) for case in problem.cases) / GB
    detail = f"all but the experts takes {least:.1f} GB of device memory, and there are {problem.hbm_bytes / GB:.1f} GB"
    return InfeasibleError("memory", detail, "a smaller weight dtype, batch or context")


def _too_slow(problem: OffloadProblem, proven: tuple[WayBound, ...], walked_s: float) -> InfeasibleError:
    """Proven where even the bounds are above the limit; else nothing was found that keeps it."""
    quick = min(proven, key=lambda one: one.step_s)
    limit = f"the limit is {1e3 * problem.max_step_s:.3g} ms"
    if quick.step_s > problem.max_step_s > 0:
        detail = f"the {quick.binds} alone makes a step {1e3 * quick.step_s:.3g} ms ({quick.policy}), and {limit}"
        return InfeasibleError("latency", detail, f"at least {1e3 * quick.step_s:.3g} ms a step")
    if not walked_s:
        return InfeasibleError("memory", "no policy has the slots that it needs", "more memory, or static-cpu")
    detail = f"the quickest step found takes {1e3 * walked_s:.3g} ms, and {limit}; no proof that none is quicker"
    return InfeasibleError("latency", detail, f"at least {1e3 * walked_s:.3g} ms a step")
