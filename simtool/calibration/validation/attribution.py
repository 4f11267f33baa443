"""Attribution: measured − predicted as a sum of parts: operator families, host, between steps, another schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.validation.held import HeldSchedule, Spans
from simtool.metrics import Result, request_latencies, serving_metrics
from simtool.validation import Attribution, Steps, Term

F8 = NDArray[np.float64]
DEVICE, REST = "device", "launches and rest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of every step: its measured and its priced seconds [k]."""

    name: str
    kind: str
    measured_s: F8
    priced_s: F8


def parts_of(steps: Steps, hidden: bool) -> list[Part]:
    """Parts that add up to each step's measured and priced seconds. hidden: the host works while the device does.

    Without measured families the device is one part; without measured host time the host is in the rest of the step.
    """
    known_host = bool(np.isfinite(steps.host_s).all())
    parts = [
        Part(name=family, kind="family", measured_s=measured, priced_s=priced)
        for family, (measured, priced) in sorted(steps.families.items())
    ]
    if known_host:
        device_s = sum((part.measured_s for part in parts), np.zeros_like(steps.measured_s))
        over_s = np.maximum(0.0, steps.host_s - (device_s if parts else steps.measured_s))
        host_s = over_s if hidden else steps.host_s
        parts.append(Part(name="host", kind="host", measured_s=host_s, priced_s=steps.priced_host_s))
    left = [
        seconds - sum((getattr(part, column) for part in parts), np.zeros_like(seconds))
        for seconds, column in ((steps.measured_s, "measured_s"), (steps.priced_s, "priced_s"))
    ]
    name = REST if steps.families else DEVICE if known_host else "steps"
    return [*parts, Part(name=name, kind="rest", measured_s=left[0], priced_s=left[1])]


def attribute(
    held: HeldSchedule, steps: Steps, parts: Sequence[Part], measured: Result, predicted: Result, *, serial: bool
) -> Attribution:
    """Terms that add up to measured − predicted (docs/validate.md).

    serial: a replica runs one step at a time, so that time between steps is the host's; else it is kept as recorded.
    """
    empty = np.zeros_like(held.lag_s)
    priced_lag_s = empty if serial else held.lag_s
    names = [part.name for part in parts]
    moves = {part.name: (part.measured_s - part.priced_s, empty) for part in parts}
    if serial:
        moves["between steps"] = (empty, held.lag_s)
        names.append("between steps")
    shares = _shares(held, steps.priced_s, priced_lag_s, moves, names)
    ours, theirs = _spans(predicted), _spans(measured)
    replayed = held.spans(steps.priced_s, priced_lag_s)
    terms = [_term(part.name, part.kind, shares, part) for part in parts]
    if serial:
        terms.append(_term("between steps", "between", shares, None, float(held.lag_s.sum())))
    gone = Spans(e2e_s=replayed.e2e_s - ours.e2e_s, duration_s=replayed.duration_s - ours.duration_s)
    terms.append(Term(name="another schedule", kind="schedule", e2e_s=gone.e2e_s, duration_s=gone.duration_s))
    whole = held.spans(held.measured_s, held.lag_s)
    odd = Spans(e2e_s=theirs.e2e_s - whole.e2e_s, duration_s=theirs.duration_s - whole.duration_s)
    if abs(odd.e2e_s) > 1e-9 * theirs.e2e_s or abs(odd.duration_s) > 1e-9 * theirs.duration_s:
        terms.append(Term(name="not in the steps", kind="rest", e2e_s=odd.e2e_s, duration_s=odd.duration_s))
    return Attribution(
        terms=tuple(terms),
        measured_e2e_s=theirs.e2e_s,
        predicted_e2e_s=ours.e2e_s,
        measured_duration_s=theirs.duration_s,
        predicted_duration_s=ours.duration_s,
    )


def _shares(
    held: HeldSchedule, priced_s: F8, lag_s: F8, moves: Mapping[str, tuple[F8, F8]], names: Sequence[str]
) -> dict[str, Spans]:
    """What each move changes, the mean of making them in order and in reverse: both sums are the whole change."""
    total = {name: [0.0, 0.0] for name in names}
    for order in (list(names), list(reversed(names))):
        seconds, lags = priced_s, lag_s
        at = held.spans(seconds, lags)
        for name in order:
            seconds, lags = seconds + moves[name][0], lags + moves[name][1]
            after = held.spans(seconds, lags)
            total[name][0] += 0.5 * (after.e2e_s - at.e2e_s)
            total[name][1] += 0.5 * (after.duration_s - at.duration_s)
            at = after
    return {name: Spans(e2e_s=e2e, duration_s=lasted) for name, (e2e, lasted) in total.items()}


def _term(name: str, kind: str, shares: Mapping[str, Spans], part: Part | None, measured_s: float = np.nan) -> Term:
    return Term(
        name=name,
        kind=kind,
        e2e_s=shares[name].e2e_s,
        duration_s=shares[name].duration_s,
        measured_s=float(part.measured_s.sum()) if part else measured_s,
        priced_s=float(part.priced_s.sum()) if part else 0.0,
    )


def _spans(result: Result) -> Spans:
    """Mean end-to-end latency and duration of a run."""
    return Spans(
        e2e_s=float(np.nanmean(request_latencies(result).e2e_s)), duration_s=serving_metrics(result)["duration"]
    )
