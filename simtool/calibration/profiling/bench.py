"""Bench: what the session asks of a device under test. TorchBench is the real one; tests have one without hardware."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from simtool.calibration.points import KernelPoint, Row, Timing
from simtool.calibration.profiling.design import Limits


class CannotMeasureError(Exception):
    """One point or extra cannot be measured here (out of memory, no such kernel); the run goes on without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """A measurement that is no kernel of a model. group: of simtool.calibration.profiling.request.EXTRAS.

    subject: names it in the journal, so that a rerun leaves it out. run: its rows; CannotMeasureError if none.
    """

    group: str
    subject: str
    run: Callable[[], Sequence[Row]]


class Bench(Protocol):
    """A device under test."""

    @property
    def device(self) -> str:
        """Its catalogue name, or another."""

    @property
    def version(self) -> str:
        """Of torch."""

    def usual_dtypes(self) -> tuple[str, ...]:
        """What it computes in best."""

    def facts(self, dtypes: Sequence[str]) -> Mapping[str, str | float]:
        """Facts of machine and run for the journal's header, with the rates that `limits` needs."""

    def limits(self, facts: Mapping[str, str | float], dtype: str) -> Limits:
        """What a point may cost; `facts` are the header's."""

    def kernel(self, family: str, dtype: str, shape_kernel: str) -> str:
        """The name of what runs. CannotMeasureError where the dtype has no kernel here."""

    def measure(self, point: KernelPoint) -> Timing:
        """Time a kernel call. CannotMeasureError where it does not fit."""

    def sentinel(self) -> float:
        """Seconds of one and the same GEMM."""

    def extras(self) -> Sequence[Extra]:
        """All other measurements, in the order to make them."""
