"""check_schedule: who ran in which step is what the steps, the batch limits and the requests' lengths allow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.executor.execution import Execution
from simtool.errors import InputError

SAME_S = 1e-6  # seconds below which two recorded moments are one
_DAMAGED = "it may be damaged"
I8 = NDArray[np.int64]
Bools = NDArray[np.bool_]


def check_schedule(execution: Execution, source: str) -> None:
    """Raise InputError for rows that contradict the step records, the plan's batch limits, or a request's tokens.

    The step columns must have been checked (execution_check.py).
    """
    schedule = execution.schedule
    if not len(schedule.step):
        raise InputError(source, "its schedule is empty", _DAMAGED)
    pools = [pool for pool in execution.plan.pools for _ in range(pool.replicas)]
    replica = execution.result.steps["replica"].astype(np.int64)[schedule.step]
    of_pool = np.array([[p.parallel.dp, p.scheduler.max_num_batched_tokens, p.scheduler.max_num_seqs] for p in pools])
    ranks, most_tokens, most_requests = of_pool[replica].T
    rules = {
        "is of a rank that the plan does not have": schedule.rank >= ranks,
        "computes no token": schedule.new_tokens < 1,
        "samples more than one token": schedule.samples > 1,
        "is on another replica than the request": replica != execution.result.replica[schedule.request],
    }
    for rule, bad in rules.items():
        _refuse(execution, bad, rule, source)
    _check_steps(execution, most_tokens, most_requests, source)
    _check_requests(execution, source)
    _check_order(execution, source)


def _check_steps(execution: Execution, most_tokens: I8, most_requests: I8, source: str) -> None:
    """The tokens of each step are the recorded ones, and no rank's batch is above the plan's limits."""
    schedule, steps = execution.schedule, execution.result.steps
    tokens = np.bincount(schedule.step, weights=schedule.new_tokens, minlength=len(steps["start_s"]))
    bad = np.flatnonzero(tokens != steps["prefill_tokens"] + steps["decode_requests"])
    if len(bad):
        row = int(bad[0])
        recorded = steps["prefill_tokens"][row] + steps["decode_requests"][row]
        rule = f"its schedule has {tokens[row]:g} tokens in step {row}, and the step's record {recorded:g}"
        raise InputError(source, rule, _DAMAGED)
    _, batch = np.unique(np.stack([schedule.step, schedule.rank]), axis=1, return_inverse=True)
    sums = np.bincount(batch, weights=schedule.new_tokens)[batch]
    _refuse(execution, sums > most_tokens, "is in a batch above the plan's max_num_batched_tokens", source)
    _refuse(execution, np.bincount(batch)[batch] > most_requests, "is in a batch above the plan's max_num_seqs", source)


def _check_requests(execution: Execution, source: str) -> None:
    """A finished request sampled its output, was prefilled whole, and ran between its send and its finish."""
    schedule, result = execution.schedule, execution.result
    requests = len(result.sent_s)
    done = np.isfinite(result.finish_s)
    outputs = result.output_tokens.astype(np.int64)
    sampled = np.bincount(schedule.request, weights=schedule.samples, minlength=requests)
    _refuse_request(done & (sampled != outputs), "does not sample its output tokens in the schedule", source)
    counts = np.array([len(ids) for ids in execution.tokens])
    _refuse_request(done & (counts != outputs), "was not given its output tokens", source)
    whole = result.input_tokens.astype(np.int64) + outputs - 1  # the last token is sampled, never computed
    computed = np.bincount(schedule.request, weights=schedule.new_tokens, minlength=requests)
    once = done & (result.preemptions == 0)
    _refuse_request(once & (computed != whole - result.cached_tokens), "does not compute all its tokens once", source)
    end = schedule.context.astype(np.int64) + schedule.new_tokens
    _refuse(execution, end > whole[schedule.request], "goes beyond the request's tokens", source)
    start_s, end_s = (result.steps[name][schedule.step] for name in ("start_s", "end_s"))
    _refuse(execution, start_s < result.sent_s[schedule.request] - SAME_S, "runs before the request was sent", source)
    late = end_s > result.finish_s[schedule.request] + SAME_S
    _refuse(execution, late, "runs after the request has finished", source)


def _check_order(execution: Execution, source: str) -> None:
    """A request is once in a step, and goes on where the step before it ended unless it was preempted."""
    schedule = execution.schedule
    order = np.lexsort((schedule.step, schedule.request))
    request, step = schedule.request[order], schedule.step[order]
    same = request[1:] == request[:-1]
    twice = np.zeros(len(order), bool)
    twice[order[1:]] = same & (step[1:] == step[:-1])
    _refuse(execution, twice, "is twice in one step", source)
    context, new = schedule.context[order].astype(np.int64), schedule.new_tokens[order]
    astray = np.zeros(len(order), bool)
    kept = execution.result.preemptions[request[1:]] == 0
    astray[order[1:]] = same & kept & (context[1:] != context[:-1] + new[:-1])
    _refuse(execution, astray, "does not go on where the request's step before it ended", source)


def _refuse(execution: Execution, bad: Bools, rule: str, source: str) -> None:
    """Raise InputError that names the first bad row of the schedule."""
    rows: Sequence[int] = np.flatnonzero(bad).tolist()
    if rows:
        step, request = int(execution.schedule.step[rows[0]]), int(execution.schedule.request[rows[0]])
        raise InputError(source, f"its schedule's row of step {step} and request {request} {rule}", _DAMAGED)


def _refuse_request(bad: Bools, rule: str, source: str) -> None:
    """Raise InputError that names the first bad request."""
    if bad.any():
        raise InputError(source, f"request {int(np.flatnonzero(bad)[0])} {rule}", _DAMAGED)
