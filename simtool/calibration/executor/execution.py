"""Execution: what a real run of a plan left behind, in the simulator's own words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.executor.settings import RunSettings
from simtool.metrics import Result
from simtool.models.routing.trace import RoutingTrace
from simtool.plan import Plan
from simtool.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Who ran in which step, one row a (step, request). Columns int32[m], steps in order of their end.

    step: index of the step (a row of Result.steps). request: row of the Workload. rank: data-parallel rank.
    new_tokens: tokens computed (a decode: 1). context: tokens that the KV cache had. samples: 1 where a token is made.
    """

    step: NDArray[np.int32]
    request: NDArray[np.int32]
    rank: NDArray[np.int32]
    new_tokens: NDArray[np.int32]
    context: NDArray[np.int32]
    samples: NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """plan, workload: as executed (`notes` says what of the user's plan was changed, and why).

    result: the simulator's columns, measured. Its `steps` hold a row a step, with these columns more: host_s (building
    the batch and reading it back) and, where operators were timed one by one, FAMILY_s for each operator family.
    tokens: generated token ids of each request, in order. layers: of the model that ran.
    environment: device, driver, torch version, date, clock, threads. settings: dtypes and options of the run (None in
    a file of an earlier version). routing: of every token that was computed, where it was asked for; its steps are the
    schedule's. It is a file of its own, not the execution's.
    """

    plan: Plan
    workload: Workload
    layers: int
    result: Result
    schedule: Schedule
    tokens: tuple[NDArray[np.int32], ...]
    environment: Mapping[str, str | float]
    notes: tuple[str, ...] = ()
    settings: RunSettings | None = None
    routing: RoutingTrace | None = None


SCHEDULE_COLUMNS = ("step", "request", "rank", "new_tokens", "context", "samples")


def inter_token_s(execution: Execution) -> list[list[float]]:
    """Seconds between the tokens of each request, which are there when their steps end: vLLM's `itls`."""
    schedule = execution.schedule
    made = schedule.samples == 1
    owner, end_s = schedule.request[made], execution.result.steps["end_s"][schedule.step[made]]
    order = np.lexsort((end_s, owner))
    counts = np.bincount(owner, minlength=execution.workload.num_requests)
    return [np.diff(times).tolist() for times in np.split(end_s[order], np.cumsum(counts)[:-1])]
