"""What files of profiles and of pooled laws may hold, as pydantic shapes. Files may come from elsewhere: every size has
a limit."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = 2

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, lt=1e4, allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=10_000)]
Column = Annotated[list[Finite], Field(max_length=200_000)]
Pair = Annotated[list[Finite], Field(min_length=2, max_length=2)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LawEntry(_Entry):
    """RooflineLaw."""

    launch_s: float = Field(ge=0, lt=1)
    compute_efficiency: float = Field(gt=0, le=2)
    memory_efficiency: float = Field(gt=0, le=4)
    exponent: float = Field(ge=1, le=64)
    item_s: float = Field(default=0.0, ge=0, lt=1)
    serial_efficiency: float = Field(default=1.0, gt=0, le=8)


class SeparableEntry(_Entry):
    """SeparableResidual: knots in log2; factors term by term as steps from knot to knot, in units of FACTOR_SCALE."""

    kind: Literal["separable"]
    knots: list[Column]
    factors: list[Annotated[list[int], Field(max_length=200_000)]]
    rank: int = Field(ge=1, le=64)
    limit: float = Field(ge=0, le=20)


class ProcessEntry(_Entry):
    """GaussianProcess over the fit's raw points: length scales in octaves, deviations in log."""

    kind: Literal["process"]
    scales: list[Positive] = Field(max_length=32)
    signal: Positive
    noise: Positive


class ErrorsEntry(_Entry):
    """FitErrors."""

    in_sample_points: int
    in_sample_median: float
    in_sample_p95: float
    held_out_points: int
    held_out_median: float
    held_out_p95: float
    law_only_median: float
    law_only_p95: float
    coverage_90: float
    noise_points: int = 0
    noise_median: float = 0.0
    noise_p95: float = 0.0


class PointsEntry(_Entry):
    """PointColumns."""

    dims: dict[str, Column] = Field(max_length=32)
    seconds: Annotated[list[Seconds], Field(max_length=200_000)]
    spread: Column


class FitEntry(_Entry):
    """One family and dtype: where the rows came from, the law, the residual, the errors, the intervals."""

    family: Text
    dtype: Text
    peak_flops: Positive
    table: Text
    kernels: list[Text]
    note: Text = ""
    refused_rows: int
    law: LawEntry
    residual: Annotated[SeparableEntry | ProcessEntry, Field(discriminator="kind")] | None
    log_interval: list[Pair]
    law_log_interval: Pair
    transfer_log_interval: Pair
    errors: ErrorsEntry
    skew: float = Field(default=0.0, ge=-2, le=2)
    points: PointsEntry | None = None


class ContentionEntry(_Entry):
    """Contention."""

    first: Text
    second: Text
    first_alone_s: Seconds
    second_alone_s: Seconds
    first_together_s: Seconds
    second_together_s: Seconds


class HostEntry(_Entry):
    """HostTime."""

    name: Text
    seconds: float = Field(ge=0, lt=1e4)
    spread: float = Field(ge=0, allow_inf_nan=False)
    source: Text = ""


class MeasuredDeviceEntry(_Entry):
    """MeasuredDevice; its name is the profile's device."""

    kind: Literal["cpu", "gpu"]
    label: Text
    memory_bytes: Positive
    count: int = Field(ge=1, le=100_000)
    units: int = Field(ge=1, le=1_000_000)
    flops: dict[Text, Positive] = Field(min_length=1, max_length=100)
    bytes_per_s: Positive
    cache_bytes: Positive | None = None
    clock_hz: Positive | None = None
    compute_capability: Text = ""


class CurveEntry(_Entry):
    """Curve."""

    kind: Text
    library: Text
    ranks: int = Field(ge=1, le=100_000)
    latency_us: Positive
    knot_bytes: list[Positive] = Field(max_length=10_000)
    excess_us: list[Positive] = Field(max_length=10_000)
    spread: float = Field(ge=0, allow_inf_nan=False)
    points: int
    held_out_median: float
    held_out_p95: float
    source: Text
    noise: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class ProfileEntry(_Entry):
    """One device, kernel library and version. checksum: see `profile_file.checksum`."""

    schema_version: int
    device: Text
    library: Text
    version: Text
    bandwidth_bytes_per_s: Positive
    source: Text
    licence: Text
    command: Text
    machine: dict[str, Text | Finite] = Field(default_factory=dict, max_length=100)
    fits: list[FitEntry] = Field(max_length=1_000)
    curves: list[CurveEntry] = Field(default_factory=list, max_length=10_000)
    copies: list[CurveEntry] = Field(default_factory=list, max_length=1_000)
    contention: list[ContentionEntry] = Field(default_factory=list, max_length=1_000)
    host: list[HostEntry] = Field(default_factory=list, max_length=1_000)
    measured_device: MeasuredDeviceEntry | None = None
    checksum: Text


class TransferLawEntry(_Entry):
    """TransferLaw of a kind, and the devices that it was fitted to."""

    library: Text
    family: Text
    dtype: Text
    devices: list[Text] = Field(min_length=1, max_length=100)
    launch_cycles: Positive
    compute_efficiency: float = Field(gt=0, le=2)
    memory_efficiency: float = Field(gt=0, le=4)
    exponent: float = Field(ge=1, le=64)
    item_cycles: Positive
    serial_efficiency: float = Field(gt=0, le=8)
    cache_bytes_per_cycle: Positive
    cache_share: Positive
    tail: Positive


class LeftOutEntry(_Entry):
    """Log intervals of a family on devices left out, by regime, and of dtypes priced by a wider one's law."""

    family: Text
    log_interval: list[Pair]
    substituted_log_interval: Pair


class TransferEntry(_Entry):
    """The file of pooled laws. checksum: as a profile's."""

    schema_version: int
    source: Text
    command: Text
    laws: list[TransferLawEntry] = Field(max_length=1_000)
    left_out: list[LeftOutEntry] = Field(max_length=100)
    checksum: Text
