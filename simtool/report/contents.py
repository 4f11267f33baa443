"""Contents: all that the page shows, gathered before a line of HTML is written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from simtool.hardware.cluster import Cluster
from simtool.metrics import Result, Slo
from simtool.plan import Plan
from simtool.planners.question import Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorTime:
    """All calls of one operator in one step, seconds; roofline_s is the floor that the specification allows."""

    name: str
    family: str
    seconds: float
    roofline_s: float
    provenance: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """Where one step's time goes. `label` says which batch."""

    label: str
    operators: tuple[OperatorTime, ...]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPoint:
    """The plan under another load. attainment: share of requests within every SLO limit (NaN: none was asked)."""

    load: float
    attainment: float
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """One run (from `simulate`) or one answer (from `plan`: `answer` is there too).

    metrics: vLLM's keys. intervals: key -> (lower, upper). price_per_hour: dollars a device-hour by device.
    facts: label -> text, of the model and the workload. provenance: operator family -> kind of evidence.
    """

    plan: Plan
    result: Result
    metrics: Mapping[str, float]
    cluster: Cluster
    slo: Slo = field(default_factory=Slo)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    answer: Answer | None = None
    steps: tuple[StepTime, ...] = ()
    load: tuple[LoadPoint, ...] = ()
    load_axis: str = "requests/s"
    load_requests: int = 0  # how many of the run's requests the loads were tried on
    load_now: float = math.nan
    stage_layers: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    price_per_hour: Mapping[str, float] = field(default_factory=dict)
    price_source: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
