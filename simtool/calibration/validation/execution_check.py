"""check_execution: an execution whose columns fit together and hold times that are times."""

from __future__ import annotations

import numpy as np

from simtool.calibration.executor.execution import Execution
from simtool.calibration.validation.replay import COMPOSITION
from simtool.errors import InputError

_DAMAGED = "it may be damaged"
_NEEDED = (*COMPOSITION, "start_s", "end_s")


def check_execution(execution: Execution, source: str) -> None:
    """Raise InputError for an execution without steps, with columns of other shapes, or with times that are none."""
    _check_requests(execution, source)
    steps = execution.result.steps
    missing = [name for name in _NEEDED if name not in steps]
    if missing or not len(steps["start_s"]):
        rule = f"keeps no steps ({missing[0]} is missing)" if missing else "has no steps"
        raise InputError(source, rule, "give the folder that `simtool execute --out` wrote")
    for name, column in steps.items():
        if column.shape != (len(steps["start_s"]),):
            raise InputError(source, f"its step columns have different lengths ({name})", _DAMAGED)
        if name in _NEEDED and not np.isfinite(column).all():
            row = int(np.flatnonzero(~np.isfinite(column))[0])
            raise InputError(source, f"step {row} has {name} = {column[row]}", _DAMAGED)
    short = np.flatnonzero(steps["end_s"] <= steps["start_s"])
    if len(short):
        raise InputError(source, f"step {short[0]} ends before it starts", _DAMAGED)
    replicas = sum(pool.replicas for pool in execution.plan.pools)
    odd = np.flatnonzero((steps["replica"] < 0) | (steps["replica"] >= replicas))
    if len(odd) or len(execution.result.kv_blocks) != replicas:
        raise InputError(source, f"its steps are not of the plan's {replicas} replicas", _DAMAGED)


def _check_requests(execution: Execution, source: str) -> None:
    """Sends are times; a request that finished did so after it was sent and had its first token."""
    result = execution.result
    if not (np.isfinite(result.sent_s) & (result.sent_s >= 0)).all():
        row = int(np.flatnonzero(~(np.isfinite(result.sent_s) & (result.sent_s >= 0)))[0])
        raise InputError(source, f"request {row} was sent at {result.sent_s[row]} s", _DAMAGED)
    done = ~np.isnan(result.finish_s)
    right = (result.finish_s >= result.first_token_s) & (result.first_token_s >= result.sent_s)
    wrong = np.flatnonzero(done & ~(right & np.isfinite(result.finish_s)))
    if len(wrong):
        rule = f"request {wrong[0]} finishes at {result.finish_s[wrong[0]]} s, which does not follow on its first token"
        raise InputError(source, rule, _DAMAGED)
