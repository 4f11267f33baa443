"""Validation: a measured run beside its prediction: metrics, steps, who is to blame, whether the order was right."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from simtool.metrics import Result
from simtool.plan import Plan

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRow:
    """One metric by vLLM's key. lower, upper: its prediction with all step times at the ends of their 90% interval.

    noise: relative difference of two measurements (NaN: measured once). few: a percentile of too few requests.
    """

    key: str
    predicted: float
    lower: float
    upper: float
    measured: float
    noise: float = math.nan
    few: bool = False

    @property
    def error(self) -> float:
        """Predicted over measured, minus 1; NaN where nothing was measured."""
        return self.predicted / self.measured - 1.0 if self.measured else math.nan

    @property
    def inside(self) -> bool:
        """Whether the measurement lies in the interval."""
        return self.lower <= self.measured <= self.upper


@dataclass(frozen=True, slots=True, kw_only=True)
class StepErrors:
    """Errors of a group of steps: median and p95 of the absolute ones; bias: the median with its sign.

    share: of the measured time of all steps. noise: median difference of two measurements (NaN: measured once).
    """

    label: str
    steps: int
    median: float
    p95: float
    bias: float
    share: float
    inside: float
    noise: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Columns [k] of the measured steps in order of their start, and what the tables say of the same batches.

    lower_s, upper_s: the ends of the price's 90% interval. host_s: measured (NaN: not known); priced_host_s: what host
    and gap add to the price. requests: of the fullest rank. families: measured and priced seconds by operator family.
    again_s: steps of the same composition in a second run (NaN: none; empty: one run).
    """

    replica: I8
    start_s: F8
    measured_s: F8
    priced_s: F8
    lower_s: F8
    upper_s: F8
    host_s: F8
    priced_host_s: F8
    prefill_tokens: I8
    decode_requests: I8
    kv_blocks: I8
    requests: I8
    families: Mapping[str, tuple[F8, F8]]
    again_s: F8 = field(default_factory=lambda: np.empty(0))

    @property
    def error(self) -> F8:
        """Priced over measured, minus 1."""
        return self.priced_s / self.measured_s - 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A part of measured − predicted, in seconds: of the mean end-to-end latency and of the run's duration.

    kind: "family", "host", "rest", "between" or "schedule". measured_s, priced_s: its sums over all steps (NaN: none).
    """

    name: str
    kind: str
    e2e_s: float
    duration_s: float
    measured_s: float = math.nan
    priced_s: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Where measured − predicted comes from: the terms add up to it (docs/validate.md defines each)."""

    terms: tuple[Term, ...]
    measured_e2e_s: float
    predicted_e2e_s: float
    measured_duration_s: float
    predicted_duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFit:
    """The host's terms as fitted on one half of the steps, and the errors of the other half before and after.

    gap_s: what a step takes beyond its kernels even where the host's work is hidden.
    """

    base_s: float
    per_request_s: float
    gap_s: float
    fitted_steps: int
    half: str
    before: StepErrors
    after: StepErrors

    @property
    def helps(self) -> bool:
        """Whether the held-out steps' median error is lower than with the host that was there before."""
        return self.after.median < self.before.median


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One demand and what was found; `passed` where found is at most the limit."""

    name: str
    found: float
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the demand is met; what is not known (NaN) does not meet it."""
        return self.found <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """plan: as predicted. tool: what measured. predicted, measured: the runs (measured None: metrics alone are known).

    cpus: the plan's devices that are CPU processes.
    divergence: "" where the replayed schedule is the recorded one step for step, else the first step that differs.
    steps, attribution, host_fit: None where the measurement has no steps, or was not asked for it.
    """

    plan: Plan
    tool: str
    source: str
    metrics: tuple[MetricRow, ...]
    predicted: Result
    measured: Result | None
    aligned: bool
    cpus: tuple[str, ...] = ()
    steps: Steps | None = None
    overall: StepErrors | None = None
    groups: tuple[StepErrors, ...] = ()
    divergence: str = ""
    attribution: Attribution | None = None
    host_fit: HostFit | None = None
    gates: tuple[Gate, ...] = ()
    notes: tuple[str, ...] = ()
    environment: Mapping[str, str | float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOrder:
    """Several plans by one metric. Columns [n] in the order given; noise: relative, of the measurement.

    top1: the plan that is best by prediction is best by measurement, or within the noise of it; of several that are
    predicted alike, each is. tau: Kendall's tau-b over all pairs (NaN: all are alike on one side); clear_tau: over the
    `clear_pairs` that differ by more than the noise (NaN: none).
    """

    names: tuple[str, ...]
    metric: str
    greater_is_better: bool
    predicted: tuple[float, ...]
    measured: tuple[float, ...]
    noise: float
    top1: bool
    tau: float
    clear_tau: float
    clear_pairs: int
