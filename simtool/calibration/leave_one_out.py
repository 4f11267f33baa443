"""How wrong a transferred price is: every measured device is left out in turn and priced from the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.fit_transfer_law import Kind, Sample, fit_laws
from simtool.hardware.fitted_work import FAMILY_TERMS
from simtool.hardware.kernel_profile import INTERVAL, REGIMES
from simtool.hardware.profile_choice import computes_in
from simtool.hardware.transfer import PooledFit, TransferLaw, transfer

Array = NDArray[np.float64]

# Quantiles of a handful of devices are narrower than what the next one needs: with these factors the 90% intervals that
# other devices give cover 86% of the rows of the one left out (docs/validation.md, by family); without them 80%.
WIDER = 1.2
MORE_WIDER: Mapping[str, float] = {"attention_prefill": 1.4, "mla_prefill": 1.4, "mla_decode": 1.4}
FEWEST_FOR_REGIME = 200  # rows in a regime for quantiles of its own
FULL_WEIGHT_ROWS = 100  # rows of a table in a regime from which on it counts as much as any other table
NOTHING = np.zeros((len(REGIMES), 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A table priced without its device. error: log(measured / predicted), [N]; regime: of each row, [N]."""

    sample: Sample
    law: TransferLaw
    sources: tuple[Sample, ...]
    error: Array
    regime: NDArray[np.intp]


def left_out(samples: Sequence[Sample]) -> list[Outcome]:
    """Every table that another device has too, priced from the other devices."""
    found = []
    for device in sorted({sample.device.name for sample in samples}):
        own = [sample for sample in samples if sample.device.name == device]
        kinds = {sample.kind for sample in own}
        wider = {(*kind[:2], "bf16") for kind in kinds}  # what a narrow dtype's law starts from
        others = [s for s in samples if s.device.name != device and s.kind in kinds | wider]
        laws = fit_laws(others)
        for sample in own:
            sources = tuple(other for other in others if other.kind == sample.kind)
            if sources:
                found.append(_outcome(sample, laws[sample.kind], sources))
    return found


def _outcome(sample: Sample, law: TransferLaw, sources: tuple[Sample, ...]) -> Outcome:
    log_seconds, regime = _price(law, sources, sample, sample.fit.dtype)
    error = np.log(sample.rows.seconds) - log_seconds
    return Outcome(sample=sample, law=law, sources=sources, error=error, regime=regime)


def _price(law: TransferLaw, sources: Sequence[Sample], sample: Sample, dtype: str) -> tuple[Array, NDArray[np.intp]]:
    """(log seconds, regime) of the rows of `sample`, stored and computed in `dtype`."""
    family, dims, compute = sample.fit.family, sample.rows.dims, computes_in(sample.fit.family, dtype)
    pooled = PooledFit(law=law, left_out=NOTHING, substituted=np.zeros(2))
    pairs = [(source.device, source.fit) for source in sources]
    found = transfer(pooled, pairs, sample.device, dims, dtype, compute, exact=True)
    terms = law.terms(FAMILY_TERMS[family].work(dims, dtype), sample.device, family, compute)
    return found.log_seconds, np.broadcast_to(terms.argmax(axis=0), found.log_seconds.shape)


def interval_of(outcomes: Sequence[Outcome], family: str) -> Array:
    """[regime, 2] ends of the 90% log interval of a family on a device that nobody measured, widened."""
    own = [outcome for outcome in outcomes if outcome.sample.fit.family == family]
    ends = np.stack([_of_regime(own, index) for index in range(len(REGIMES))])
    return np.round(MORE_WIDER.get(family, WIDER) * ends, 3)


def _of_regime(outcomes: Sequence[Outcome], regime: int) -> Array:
    """Quantiles of one regime's errors, or of all errors where it has few rows; tables count alike."""
    parts = [outcome.error[outcome.regime == regime] for outcome in outcomes]
    if sum(map(len, parts)) < FEWEST_FOR_REGIME:
        parts = [outcome.error for outcome in outcomes]
    return table_quantiles(parts, INTERVAL)


def table_quantiles(parts: Sequence[Array], shares: Sequence[float]) -> Array:
    """Quantiles of errors where each table counts alike, and one of very few rows for less."""
    parts = [part for part in parts if len(part)]
    weights = np.concatenate([np.full(len(part), 1.0 / max(len(part), FULL_WEIGHT_ROWS)) for part in parts])
    values = np.concatenate(parts)
    order = np.argsort(values, kind="stable")
    reached = (np.cumsum(weights[order]) - 0.5 * weights[order]) / weights.sum()
    return np.interp(shares, reached, values[order])


def substitution_interval(samples: Sequence[Sample], laws: Mapping[Kind, TransferLaw], family: str) -> Array:
    """[2] ends of the 90% log error of a narrow dtype priced by the 16-bit law and fits, its own device among them.

    What a dtype without tables is short of by the next wider one's, as measured where both have tables.
    """
    parts = []
    for sample in samples:
        wider = (sample.fit.library, family, "bf16")
        sources = [other for other in samples if other.kind == wider]
        own = any(other.device.name == sample.device.name for other in sources)
        if sample.fit.family == family and sample.fit.dtype != "bf16" and own:
            found, _ = _price(laws[wider], sources, sample, sample.fit.dtype)
            parts.append(np.log(sample.rows.seconds) - found)
    low, high = table_quantiles(parts, INTERVAL) if parts else (0.0, 0.0)
    return np.round([min(low, 0.0), max(high, 0.0)], 3)
