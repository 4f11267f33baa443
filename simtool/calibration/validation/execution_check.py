"""check_execution: an execution whose columns fit together and hold times that are times."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.executor.execution import Execution
from simtool.calibration.validation.measurement import LONGEST_S, check_run_times
from simtool.calibration.validation.replay import COMPOSITION
from simtool.calibration.validation.schedule_check import SAME_S, check_schedule
from simtool.errors import InputError

_DAMAGED = "it may be damaged"
_NEEDED = (*COMPOSITION, "start_s", "end_s")
_MOST = 2**31 - 1


def check_execution(execution: Execution, source: str) -> None:
    """Raise InputError for an execution without steps, with columns of other shapes, or with times that are none."""
    check_run_times(execution.workload, source)
    _check_requests(execution, source)
    steps = execution.result.steps
    missing = [name for name in _NEEDED if name not in steps]
    if missing or not len(steps["start_s"]):
        rule = f"keeps no steps ({missing[0]} is missing)" if missing else "has no steps"
        raise InputError(source, rule, "give the folder that `simtool execute --out` wrote")
    for name, column in steps.items():
        _check_column(name, column, len(steps["start_s"]), source)
    _check_order(execution, source)
    check_schedule(execution, source)


def _check_column(name: str, column: NDArray[np.float64], rows: int, source: str) -> None:
    """A value a step: a time that is one, or a count. What need not be known (a part of a step) may be NaN."""
    if column.shape != (rows,):
        raise InputError(source, f"its step columns have different lengths ({name})", _DAMAGED)
    good = np.abs(column) <= LONGEST_S
    if name in COMPOSITION:
        good = (column >= 0) & (column <= _MOST) & (column == np.rint(column))
    elif name not in _NEEDED:
        good |= np.isnan(column)
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        raise InputError(source, f"step {row} has {name} = {column[row]:g}", _DAMAGED)


def _check_order(execution: Execution, source: str) -> None:
    """Steps take time, start in the order of their rows, are of the plan's replicas, and end before the run does."""
    result, steps = execution.result, execution.result.steps
    start, end, replica = steps["start_s"], steps["end_s"], steps["replica"]
    short = np.flatnonzero(end <= start)
    if len(short):
        raise InputError(source, f"step {short[0]} ends before it starts", _DAMAGED)
    back = np.flatnonzero(np.diff(start) < 0)
    if start[0] < 0 or len(back):
        row = int(back[0]) + 1 if len(back) else 0
        raise InputError(
            source, f"step {row} starts at {start[row]:g} s, before the step (or the run) before it", _DAMAGED
        )
    last_s = np.max(result.finish_s, initial=-np.inf, where=np.isfinite(result.finish_s))
    late = np.flatnonzero((end > last_s + SAME_S) & (last_s >= 0))  # without a finish the run is refused later
    if len(late):
        rule = f"step {late[0]} ends at {end[late[0]]:g} s, after the last request has finished ({last_s:g} s)"
        raise InputError(source, rule, _DAMAGED)
    replicas = sum(pool.replicas for pool in execution.plan.pools)
    if replica.max() >= replicas or len(result.kv_blocks) != replicas:
        raise InputError(source, f"its steps are not of the plan's {replicas} replicas", _DAMAGED)
    for number, stages in enumerate(pool.parallel.pp for pool in execution.plan.pools for _ in range(pool.replicas)):
        own = np.flatnonzero(replica == number)
        beside = np.flatnonzero(start[own[1:]] < end[own[:-1]] - SAME_S)
        if stages == 1 and len(beside):
            row = int(own[beside[0] + 1])
            raise InputError(source, f"step {row} starts before the replica's step before it has ended", _DAMAGED)


def _check_requests(execution: Execution, source: str) -> None:
    """Sends are times, not before the arrivals; a request that finished did so after its first token."""
    result, workload = execution.result, execution.workload
    for name, column in (("workload", workload.arrival_s), ("run", result.sent_s)):
        if not len(column):
            raise InputError(source, f"its {name} has no requests", _DAMAGED)
    if len(result.sent_s) != workload.num_requests:
        raise InputError(source, f"its run has {len(result.sent_s)} of {workload.num_requests} requests", _DAMAGED)
    done = ~np.isnan(result.finish_s)
    # a closed loop and a session send when an answer is there, and what they refuse may never have been sent
    reactive = workload.max_concurrency > 0 or len(workload.follows) > 0
    least_s = -SAME_S if reactive else workload.arrival_s - SAME_S
    sent = (result.sent_s >= least_s) & ((result.sent_s <= LONGEST_S) | ~done)
    if not sent.all():
        row = int(np.flatnonzero(~sent)[0])
        rule = f"request {row} was sent at {result.sent_s[row]:g} s, and arrived at {workload.arrival_s[row]:g} s"
        raise InputError(source, rule, _DAMAGED)
    right = (result.finish_s >= result.first_token_s) & (result.first_token_s >= result.sent_s)
    wrong = np.flatnonzero(done & ~(right & (result.finish_s <= LONGEST_S)))
    if len(wrong):
        rule = (
            f"request {wrong[0]} finishes at {result.finish_s[wrong[0]]:g} s, which does not follow on its first token"
        )
        raise InputError(source, rule, _DAMAGED)
    if result.warmup_requests != workload.warmup_requests:
        rule = f"{result.warmup_requests} warm-up requests, and the workload has {workload.warmup_requests}"
        raise InputError(source, rule, _DAMAGED)
