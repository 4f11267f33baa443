"""How much longer a decode batch of unequal lengths takes: t = t(mean) + skew * (t(longest) - t(mean)).

A kernel that splits the longest sequence over idle processors has a skew near 0, one that waits for it near 1. Fitted
only where batches of unequal lengths were measured; kept only where it helps on batches that were left out.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.fit_family import FittedFamily
from simtool.calibration.fit_law import four_digits
from simtool.calibration.measurements import Measurements

Array = NDArray[np.float64]
FOLDS = 5
FEWEST = 10
LEAST_GAP = 0.1  # of t(mean): rows whose longest sequence hardly matters say nothing of the skew


def with_skew(fit: FittedFamily, rows: Measurements) -> FittedFamily:
    """`fit` with the skew of `rows`, whose dims hold kv_max beside the mean kv_len."""
    at_mean = np.exp(fit.log_seconds(rows))
    longest = replace(rows, dims={**rows.dims, "kv_len": rows.dims["kv_max"]})
    gap = np.exp(fit.log_seconds(longest)) - at_mean
    told = gap > LEAST_GAP * at_mean
    if np.count_nonzero(told) < FEWEST:
        return fit
    share, mean = (rows.seconds - at_mean)[told] / gap[told], at_mean[told]
    gaps, seconds = gap[told], rows.seconds[told]
    fold = np.arange(len(share)) % FOLDS
    left_out = np.concatenate(
        [mean[fold == f] + float(np.median(share[fold != f])) * gaps[fold == f] for f in range(FOLDS)]
    )
    measured = np.concatenate([seconds[fold == f] for f in range(FOLDS)])
    before = np.median(np.abs(mean / seconds - 1.0))
    after = np.median(np.abs(left_out / measured - 1.0))
    skew = float(np.clip(np.median(share), 0.0, 1.0))
    return replace(fit, skew=four_digits(skew)) if after < before else fit
