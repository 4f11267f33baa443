"""Steps: measured ones beside the price of the same batches, and their errors by what the batch holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.executor.execution import Execution
from simtool.calibration.validation.families import family_seconds, sampled_steps
from simtool.calibration.validation.predicting import Priced, with_tables, without_host
from simtool.calibration.validation.replay import COMPOSITION, Replay, replay
from simtool.validation import StepErrors, Steps

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]
_EDGES = (1, 2, 5, 9, 17, 33, 65, 129, 257, 513, 1025)
_FAMILY = "_s"
_NOT_FAMILIES = ("start_s", "end_s", "host_s")


def compare_steps(priced: Priced, execution: Execution, again: Execution | None = None) -> tuple[Steps, Replay]:
    """Price the batches that the replayed scheduler composes. Where the replay diverges they are others."""
    recorded = execution.result.steps
    router = priced.plan.router
    nominal = replay(priced.engines, execution.workload, router, recorded)
    lower, upper, device = (
        replay(engines, execution.workload, router, recorded).priced_s
        for engines in (
            with_tables(priced.engines, "lower"),
            with_tables(priced.engines, "upper"),
            without_host(priced.engines),
        )
    )
    gap_s = priced.host.gap_s
    steps = Steps(
        replica=recorded["replica"].astype(np.int64),
        start_s=recorded["start_s"],
        measured_s=recorded["end_s"] - recorded["start_s"],
        priced_s=nominal.priced_s,
        lower_s=np.minimum(lower, nominal.priced_s),
        upper_s=np.maximum(upper, nominal.priced_s),
        host_s=recorded.get("host_s", np.full(len(recorded["start_s"]), np.nan)),
        priced_host_s=nominal.priced_s - device + gap_s,
        **{name: recorded[name].astype(np.int64) for name in ("prefill_tokens", "decode_requests", "kv_blocks")},
        requests=np.array([batch.requests for batch in nominal.batches], np.int64),
        families=_families(priced, execution, nominal),
        again_s=_again(execution, again),
    )
    return steps, nominal


def _families(priced: Priced, execution: Execution, nominal: Replay) -> dict[str, tuple[F8, F8]]:
    """Measured and priced seconds of each family that was timed; others are in the rest of the step."""
    recorded = execution.result.steps
    timed = {
        name.removesuffix(_FAMILY): column
        for name, column in recorded.items()
        if name.endswith(_FAMILY) and name not in _NOT_FAMILIES
    }
    if not timed:
        return {}
    by_operator = sum((np.nan_to_num(column) for column in timed.values()), np.zeros(len(nominal.batches))) > 0
    timed = {family: np.where(by_operator, column, np.nan) for family, column in timed.items()}
    rows = sampled_steps(len(nominal.batches))
    replicas = recorded["replica"].astype(np.int64)
    found = family_seconds(priced, replicas[rows], [nominal.batches[row] for row in rows.tolist()])
    spread = {family: _spread(seconds, rows, nominal) for family, seconds in found.items()}
    nothing = np.zeros(len(replicas))
    if nominal.result.offload is not None and len(nominal.result.offload.stall_s) == len(nothing):
        spread["copies"] = nominal.result.offload.stall_s.sum(axis=1)  # waiting for what is copied
    return {family: _filled(column, spread.get(family, nothing)) for family, column in sorted(timed.items())}


def _filled(measured_s: F8, priced_s: F8) -> tuple[F8, F8]:
    """Both columns; a step that was not timed by operator takes the ratio of those that were."""
    known = np.isfinite(measured_s)
    whole = float(priced_s[known].sum())
    ratio = float(measured_s[known].sum()) / whole if whole else 1.0
    return np.where(known, measured_s, ratio * priced_s), priced_s


def _spread(seconds: F8, rows: I8, nominal: Replay) -> F8:
    """From the sampled steps to all: each takes the share of its price that the nearest one of its kind has."""
    steps = len(nominal.batches)
    if len(rows) == steps:
        return seconds
    kinds = np.array([(batch.decodes > 0) + 2 * bool(batch.chunks) for batch in nominal.batches])
    share = seconds / nominal.priced_s[rows]
    found = np.zeros(steps)
    for kind in np.unique(kinds).tolist():
        mine, known = np.flatnonzero(kinds == kind), np.flatnonzero(kinds[rows] == kind)
        if len(known):
            place = np.clip(np.searchsorted(rows[known], mine), 0, len(known) - 1)
            found[mine] = share[known[place]] * nominal.priced_s[mine]
    return found


def _again(execution: Execution, again: Execution | None) -> F8:
    """Each step's time in the second run: of the step of the same composition, the n-th for the n-th; NaN without."""
    if again is None:
        return np.empty(0)
    two = again.result.steps
    times: dict[tuple[int, ...], list[float]] = {}
    for key, seconds in zip(_keys(two), (two["end_s"] - two["start_s"]).tolist(), strict=True):
        times.setdefault(key, []).append(seconds)
    found = []
    for key in _keys(execution.result.steps):
        left = times.get(key)
        found.append(left.pop(0) if left else np.nan)
    return np.array(found)


def _keys(steps: dict[str, F8]) -> list[tuple[int, ...]]:
    """What each step holds: replica, prompt tokens, decodes, KV blocks."""
    columns = [steps[name].astype(np.int64).tolist() for name in COMPOSITION[:4]]
    return list(zip(*columns, strict=True))


def errors_of(label: str, steps: Steps, rows: NDArray[np.bool_]) -> StepErrors:
    """Errors of some of the steps."""
    error = steps.error[rows]
    known = np.isfinite(error)
    size = np.abs(error[known])
    inside = (steps.lower_s <= steps.measured_s) & (steps.measured_s <= steps.upper_s)
    noise = np.abs(steps.again_s[rows] / steps.measured_s[rows] - 1) if len(steps.again_s) else np.empty(0)
    return StepErrors(
        label=label,
        steps=int(np.count_nonzero(rows)),
        median=_median(size),
        p95=float(np.percentile(size, 95)) if len(size) else np.nan,
        bias=_median(error[known]),
        share=float(steps.measured_s[rows].sum() / steps.measured_s.sum()),
        inside=float(inside[rows].mean()),
        noise=_median(noise[np.isfinite(noise)]),
    )


def errors_by_composition(steps: Steps) -> tuple[StepErrors, ...]:
    """Prefill alone, prefill beside decodes, and decodes alone by how many; groups without steps are left out."""
    chunks, decodes = steps.prefill_tokens > 0, steps.decode_requests
    groups: list[tuple[str, NDArray[np.bool_]]] = [
        ("prefill only", chunks & (decodes == 0)),
        ("prefill and decode", chunks & (decodes > 0)),
    ]
    for least, beyond in zip(_EDGES, (*_EDGES[1:], np.inf), strict=True):
        label = f"decode {least}" if beyond == least + 1 else f"decode {least}–{beyond - 1:g}"
        if beyond == np.inf:
            label = f"decode {least} and more"
        groups.append((label, ~chunks & (decodes >= least) & (decodes < beyond)))
    return tuple(errors_of(label, steps, rows) for label, rows in groups if rows.any())


def _median(values: F8 | Sequence[float]) -> float:
    return float(np.median(values)) if len(values) else np.nan
