"""Arrival times: Poisson, gamma, constant or all at once."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError


def arrivals(count: int, request_rate: float, burstiness: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """`count` arrival times in seconds, float64, sorted.

    Gaps are gamma(shape = burstiness, scale = 1 / (rate x burstiness)), so their mean is 1/rate and their
    coefficient of variation 1/sqrt(burstiness): vLLM's `get_request`. vLLM then stretches the whole schedule to
    exactly count/rate seconds; this does not, because a stretched Poisson process is none.
    """
    if not request_rate > 0:
        raise InputError(f"request_rate = {request_rate}", "must be above 0 requests/s", "inf sends all at once")
    if not burstiness > 0:
        raise InputError(f"burstiness = {burstiness}", "must be above 0", "1 is a Poisson process")
    if math.isinf(request_rate):
        return np.zeros(count)
    if math.isinf(burstiness):
        return np.arange(1, count + 1) / request_rate
    gaps = rng.standard_exponential(count) if burstiness == 1.0 else rng.standard_gamma(burstiness, count)
    gaps *= 1.0 / (request_rate * burstiness)
    return np.cumsum(gaps, out=gaps)
