"""Gates: what an accuracy claim demands of a validation, as a function that tests and scripts may call."""

from __future__ import annotations

import math
from collections.abc import Sequence

from simtool.validation import Gate, MetricRow, StepErrors

FLOOR = 0.25  # an error below this passes however quiet the measurement is
NOISES = 3.0  # times the difference of two measurements
HEADLINES = ("mean_ttft_ms", "mean_tpot_ms", "mean_e2el_ms", "output_throughput")


def error_limit(noise: float, floor: float = FLOOR) -> float:
    """The largest error that passes: the floor, or NOISES times the noise where that is more (NaN: not known)."""
    return floor if math.isnan(noise) else max(floor, NOISES * noise)


def gates(
    metrics: Sequence[MetricRow],
    steps: StepErrors | None,
    *,
    schedule: str | None,
    floor: float = FLOOR,
) -> tuple[Gate, ...]:
    """The schedule is the recorded one; the median step's error and each headline's are within `error_limit`.

    schedule: where it diverges ("": nowhere; None: not known).
    """
    found = [] if schedule is None else [Gate(name="schedule identical", found=float(bool(schedule)), limit=0.0)]
    if steps is not None:
        found.append(Gate(name="median step", found=steps.median, limit=error_limit(steps.noise, floor)))
    found += [
        Gate(name=row.key, found=abs(row.error), limit=error_limit(row.noise, floor))
        for row in metrics
        if row.key in HEADLINES and not math.isnan(row.measured)
    ]
    return tuple(found)
