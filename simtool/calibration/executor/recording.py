"""Recording: which experts the tokens of a real run chose, as a RoutingTrace."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simtool.calibration.executor.job import Job
from simtool.calibration.executor.real_clock import RunStep
from simtool.errors import InputError
from simtool.models.architecture import ModelArchitecture
from simtool.models.routing.shape import moe_shape
from simtool.models.routing.trace import RoutingTrace, make_trace


def check_recordable(job: Job) -> None:
    """Raise InputError where no routing can be recorded: no experts, or several processes that each see a part."""
    moe_shape(job.architecture)
    if any(pool.parallel.devices > 1 for pool in job.plan.pools):
        hint = "tp, pp and dp of 1: weights do not depend on the sharding, and so neither does the routing"
        raise InputError("record-routing", "is for replicas of one device", hint)


def recorded_routing(steps: Sequence[RunStep], architecture: ModelArchitecture) -> RoutingTrace | None:
    """The trace of steps that were recorded, in the order of their ends; None where none was.

    A request is a sequence, and a step's place in `steps` its number, as in the execution's schedule.
    """
    recorded = [(number, step) for number, step in enumerate(steps) if step.outcome.routing is not None]
    if not recorded:
        return None
    shape = moe_shape(architecture)
    rows = [
        (slot.request, slot.context + place, number, int(prefill))
        for number, step in recorded
        for batch in step.batches
        for slots, prefill in ((batch.decodes, False), (batch.prefills, True))
        for slot in slots
        for place in range(slot.new)
    ]
    columns = np.array(rows, np.int64).reshape(-1, 4)
    return make_trace(
        experts=np.concatenate([step.outcome.routing for _, step in recorded if step.outcome.routing is not None]),
        sequence=columns[:, 0].astype(np.int32),
        position=columns[:, 1].astype(np.int32),
        step=columns[:, 2].astype(np.int32),
        prefill=columns[:, 3].astype(np.bool_),
        num_experts=shape.num_experts,
        layers=shape.layers,
        source=f"{architecture.name}, executed",
    )
