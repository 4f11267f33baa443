"""The layers of a step of a real plan, scheduled by the solver, then simulated with their kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from simtool.models.architecture import ModelArchitecture
from simtool.plan import Overlap, Pool
from simtool.planners.schedule.kernels import KernelLayer
from simtool.planners.schedule.layer import LayerProblem, ModuloSchedule
from simtool.planners.schedule.overlap import OverlapPlan, plan_overlap
from simtool.planners.schedule.placing import no_overlap
from simtool.planners.schedule.progress import Effort
from simtool.planners.schedule.unroll import kernel_parts, unrolled
from simtool.simulator.batch_text import StepText
from simtool.simulator.overlap.kernel import device_resources
from simtool.simulator.overlap.layer_time import LayerTime, layer_time, steady_layer
from simtool.simulator.overlap.prices import LayerPrices
from simtool.simulator.overlap.step import OverlappedStep, step_prices
from simtool.simulator.step_costs import StageHardware
from simtool.simulator.tasks.graph import TaskGraph
from simtool.simulator.tasks.simulate import simulate_tasks

NANO_BATCHES = (1, 2, 3)  # numbers of equal nano-batches that are tried
_LAYERS = 24  # simulated once and twice
_SHOWN = 4  # layers of the timeline


@dataclass(frozen=True, slots=True, kw_only=True)
class SolvedLayer:
    """A kind of layer as the solver schedules it.

    plan: the search over all numbers of nano-batches, with its bound. batches: of the schedule whose simulation is the
    fastest, 0 where one kernel after the other is: do not overlap. events: whether its streams also wait for what was
    planned to end first.
    problem, schedule: that one, of one nano-batch where it does not overlap.
    planned_s: its period by the plan. time: as simulated, kernels competing for what they share.
    simulated_s: (number of nano-batches, events) → period of each that was simulated.
    """

    plan: OverlapPlan
    batches: int
    events: bool
    problem: LayerProblem
    schedule: ModuloSchedule
    planned_s: float
    time: LayerTime
    simulated_s: Mapping[tuple[int, bool], float]

    @property
    def overlaps(self) -> bool:
        """Whether running kernels at once is worth it."""
        return self.batches > 0

    @property
    def gap(self) -> float:
        """How far the planned period may be from the best of the planner's model, as a share of it."""
        return max(0.0, 1.0 - self.plan.certificate.bound / self.planned_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class SolvedStep:
    """All kinds of layers of all stages."""

    layers: tuple[SolvedLayer, ...]

    @property
    def step(self) -> OverlappedStep:
        """What the simulation says, as of any other overlap."""
        return OverlappedStep(overlap=None, layers=tuple(layer.time for layer in self.layers))


def solve_step(
    arch: ModelArchitecture,
    pool: Pool,
    hardware: Mapping[str, StageHardware],
    batch: StepText,
    effort: Effort,
) -> SolvedStep:
    """Schedule each kind of layer; kinds that cost the same are solved once. Arguments and errors: `overlapped_step`.

    effort: for a kind of layer and a number of nano-batches.
    """
    solved: list[tuple[LayerPrices, SolvedLayer]] = []
    for price in step_prices(arch, pool, hardware, batch):
        same = next((layer for other, layer in solved if _alike(price, other)), None)
        layer = solve_layer(price, effort) if same is None else _of_kind(same, price)
        solved.append((price, layer))
    return SolvedStep(layers=tuple(layer for _, layer in solved))


def solve_layer(price: LayerPrices, effort: Effort, counts: Sequence[int] = NANO_BATCHES) -> SolvedLayer:
    """Plan the layer for each number of nano-batches, simulate each with and without events, keep the fastest.

    Never slower than one kernel after the other, which is the answer where no simulation of all layers of the kind, the
    filling of the pipeline included, beats it.
    """
    layer = KernelLayer(price=price, resources=device_resources(price.hardware.device))
    problems = [layer.problem([1.0 / count] * count) for count in counts]
    plan = plan_overlap(problems, effort)
    times = {
        (problem.batches, events): _simulated(price, layer, problem, found.schedule, events=events)
        for problem, found in zip(problems, plan.plans, strict=True)
        for events in (True, False)
    }
    best = min(times, key=lambda which: times[which].seconds)
    none = layer_time(price, Overlap(), price.hardware, price.kind)
    worth = times[best].seconds < none.seconds * (1.0 - 1e-9)
    serial = layer.problem([1.0])
    chosen = {problem.batches: (problem, found.schedule) for problem, found in zip(problems, plan.plans, strict=True)}
    problem, schedule = chosen[best[0]] if worth else (serial, no_overlap(serial))
    return SolvedLayer(
        plan=plan,
        batches=best[0] if worth else 0,
        events=best[1],
        problem=problem,
        schedule=schedule,
        planned_s=schedule.period_s if worth else none.serial_s,
        time=times[best] if worth else none,
        simulated_s={which: time.period_s for which, time in times.items()},
    )


def _simulated(
    price: LayerPrices, layer: KernelLayer, problem: LayerProblem, schedule: ModuloSchedule, *, events: bool
) -> LayerTime:
    parts = kernel_parts(layer, problem, schedule, [1.0 / problem.batches] * problem.batches)

    def graph(layers: int) -> TaskGraph:
        return unrolled(problem, schedule, layers, parts, layer.resources, events=events)

    found = steady_layer(price, price.kind, graph(_LAYERS), graph(2 * _LAYERS), _LAYERS)
    return replace(found, timeline=simulate_tasks(graph(_SHOWN), record=True))


def _alike(one: LayerPrices, other: LayerPrices) -> bool:
    """Whether two kinds of layers cost the same and are as many: layers of inner stages, say."""
    shares = [1.0 / count for count in NANO_BATCHES]
    same = device_resources(one.hardware.device) == device_resources(other.hardware.device)
    same = same and one.kind.count == other.kind.count
    return same and all(one(share) == other(share) for share in shares)


def _of_kind(layer: SolvedLayer, price: LayerPrices) -> SolvedLayer:
    return replace(layer, time=replace(layer.time, kind=price.kind))
