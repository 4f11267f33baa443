"""What a StepSchedule asks of the executor: which steps it cuts, and the order of its calls in a stage's layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from simtool.calibration.executor.batch import StepBatch
from simtool.calibration.executor.calls import ATTENTION, calls_of
from simtool.calibration.executor.job import Job
from simtool.calibration.executor.nano_batches import cut
from simtool.errors import InputError
from simtool.models.architecture import ModelArchitecture
from simtool.models.layer_chain import LayerKind, layer_kinds
from simtool.models.lowering_shard import make_shard
from simtool.models.memory import stage_layers
from simtool.plan import Overlap, Parallel
from simtool.step_schedule import KindSchedule, StepSchedule

SOLVE_HINT = "solve the schedule for this plan: simtool overlap PLAN --solve --schedule FILE"
_PREFILL, _DECODE = ("attention_prefill", "mla_prefill"), ("attention_decode", "mla_decode")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A call of one nano-batch in the n-th layer of a run of equal layers. after: turns of other streams, by place."""

    layer: int
    nano_batch: int
    call: str
    stream: int
    after: tuple[int, ...] = ()


def turns_of(kind: KindSchedule, calls: dict[str, str], layers: int) -> tuple[Turn, ...]:
    """The executor's calls in the order of the first `layers` layers.

    What the executor does in one call is done where the first of its operators is launched.
    """
    turns: list[Turn] = []
    done: dict[tuple[int, int, str], int] = {}
    places: list[set[int]] = []  # by launch: its turns
    for launch in kind.launches:
        places.append(set())
        if launch.layer >= layers:
            continue
        after = {place for number in launch.after for place in places[number]}
        for batch in launch.nano_batches:
            for operator in launch.operators:
                key = launch.layer, batch, calls[operator]
                if key not in done:
                    done[key] = len(turns)
                    waits = tuple(sorted(place for place in after if turns[place].stream != launch.stream))
                    turns.append(
                        Turn(layer=launch.layer, nano_batch=batch, call=key[2], stream=launch.stream, after=waits)
                    )
                places[-1].add(done[key])
    return tuple(turns)


def stage_turns(
    schedule: StepSchedule, arch: ModelArchitecture, parallel: Parallel, stage: int
) -> tuple[tuple[int, tuple[Turn, ...]], ...]:
    """(layers, their turns) of each run of equal layers of a stage. InputError for a schedule of something else."""
    degrees = {name: getattr(parallel, name) for name in ("tp", "pp", "dp", "ep")}
    theirs = {name: getattr(schedule, name) for name in degrees}
    if theirs != degrees:
        raise InputError(theirs, f"the schedule has these degrees and the plan {degrees}", SOLVE_HINT)
    before = sum(len(layer_kinds(make_shard(arch, parallel, earlier))) for earlier in range(stage))
    shard = make_shard(arch, parallel, stage)
    kinds = layer_kinds(shard)
    order = [_kind_of(arch, index, kinds) for index in stage_layers(arch, parallel)[stage]]
    runs = []
    for place, run in groupby(order):
        count, number = len(list(run)), before + place
        if number >= len(schedule.kinds) or schedule.kinds[number].layers < count:
            raise InputError(f"{count} layers", "are more of a kind than the schedule has", SOLVE_HINT)
        kind, calls = schedule.kinds[number], calls_of(shard, kinds[place])
        odd = sorted((set(kind.operators) - set(ATTENTION)) ^ set(calls))
        if odd or not set(kind.operators) & {*_PREFILL, *_DECODE}:
            rule = "differ between the schedule's layers and the plan's"
            raise InputError(", ".join(odd) or "attention", rule, SOLVE_HINT)
        runs.append((count, turns_of(kind, {**dict.fromkeys(ATTENTION, "attention"), **calls}, count)))
    return tuple(runs)


def check_schedule(job: Job, schedule: StepSchedule) -> None:
    """Raise InputError for a schedule of another model, plan or layers than the job's."""
    if schedule.model != job.plan.model:
        raise InputError(
            schedule.model, f"is what the schedule is for, and the plan is of {job.plan.model}", SOLVE_HINT
        )
    if len(job.plan.pools) > 1:
        raise InputError(
            f"{len(job.plan.pools)} pools", "a schedule is for the steps of one pool", "leave --schedule out"
        )
    parallel = job.plan.pools[0].parallel
    for stage in range(parallel.pp):
        stage_turns(schedule, job.architecture, parallel, stage)


def _kind_of(arch: ModelArchitecture, index: int, kinds: Sequence[LayerKind]) -> int:
    layer = arch.layers[index]
    mine = layer.mixer, layer.mlp, layer.dtypes or arch.dtypes
    return next(place for place, kind in enumerate(kinds) if (kind.mixer, kind.mlp, kind.dtypes) == mine)


def scheduled_parts(batches: Sequence[StepBatch], schedule: StepSchedule, block_size: int) -> list[list[StepBatch]]:
    """The step in the schedule's nano-batches; whole where the schedule is not of such a step.

    That is a step of decodes where it is of prompts (or the reverse, or of both), one of fewer requests than
    nano-batches, and one in which a nano-batch reads pages that another one fills.
    """
    operators = {operator for kind in schedule.kinds for operator in kind.operators}
    asked = bool(operators & set(_DECODE)), bool(operators & set(_PREFILL))
    there = any(batch.decodes for batch in batches), any(batch.prefills for batch in batches)
    whole = [list(batches)]
    if there != asked or schedule.nano_batches < 2:
        return whole
    parts = cut(batches, Overlap(nano_batches=(1.0 / schedule.nano_batches,) * schedule.nano_batches))
    return parts if len(parts) == schedule.nano_batches and not _share_pages(parts, block_size) else whole


def _share_pages(parts: Sequence[Sequence[StepBatch]], block_size: int) -> bool:
    """Whether a nano-batch reads a page that another one fills in the same step, on any data-parallel rank."""
    for rank in range(len(parts[0])):
        owner: dict[int, int] = {}
        for number, part in enumerate(parts):
            for slot in part[rank].slots:
                owner |= {int(page): number for page in slot.blocks[slot.context // block_size :]}
        for number, part in enumerate(parts):
            for slot in part[rank].slots:
                if any(owner.get(int(page), number) != number for page in slot.blocks):
                    return True
    return False
