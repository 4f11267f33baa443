"""CoverageLaw: share of problems that any of k samples solves, as an exponentiated power law."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simtool.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageLaw:
    """coverage(k) = exp(a · k^b) with a, b < 0 (Brown et al. 2024, arXiv 2407.21787)."""

    a: float
    b: float

    def coverage(self, samples: float) -> float:
        """Share of problems that at least one of so many samples solves."""
        return float(np.exp(self.a * samples**self.b))

    def samples_for(self, coverage: float) -> float:
        """The number of samples (not rounded) that reaches a coverage in (0, 1)."""
        if not 0.0 < coverage < 1.0:
            raise InputError(coverage, "a coverage to reach is between 0 and 1, both left out")
        return float((np.log(coverage) / self.a) ** (1.0 / self.b))


def fit_coverage(samples: Sequence[float], coverage: Sequence[float]) -> CoverageLaw:
    """Least squares of log(−log coverage) over log k: a line. InputError: fewer than two k, or no growth."""
    k, share = np.asarray(samples, float), np.asarray(coverage, float)
    if len(k) != len(share) or len(np.unique(k)) < 2 or (k <= 0).any():
        raise InputError(list(samples), "a fit needs two numbers of samples above 0, and a coverage for each")
    if ((share <= 0.0) | (share >= 1.0)).any():
        raise InputError(list(coverage), "coverages to fit are between 0 and 1, both left out")
    b, intercept = np.polyfit(np.log(k), np.log(-np.log(share)), 1)
    if not b < 0.0:
        raise InputError(list(coverage), "coverage grows with samples")
    return CoverageLaw(a=-float(np.exp(intercept)), b=float(b))
