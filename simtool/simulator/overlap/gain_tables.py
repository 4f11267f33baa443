"""From an OverlapGain to the arrays that a replica reads: what is saved at every token count, and of decode steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.plan import Overlap
from simtool.simulator.step_costs import DECODE_SHARES, PREFILL_SHARES, OverlapGain

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLoad:
    """A stage beside attention, at each token count of a rank, T = 0 … max_tokens.

    padded [T]: tokens computed. dense_s, shared_s [T]: seconds of its kernels. launch_s [T]: of launching them, 0 where
    a CUDA graph does. gap_s [T]: device idle between steps.
    """

    padded: Array
    dense_s: Array
    shared_s: Array
    launch_s: Array
    gap_s: Array

    @property
    def token_s(self) -> Array:
        """[T] seconds of the dense part: no faster than its kernels can be launched."""
        return np.asarray(np.maximum(self.dense_s, self.launch_s) + self.gap_s)

    @property
    def base_s(self) -> Array:
        """[T] seconds without overlap and without attention."""
        return np.asarray(self.token_s + self.shared_s)


def gain_table(gain: OverlapGain, load: StageLoad, end: int, overlap: Overlap) -> Array:
    """[T, U, V] share of the stage's step that is saved. `gain.small`: of fewer tokens than the overlap asks for."""
    places = np.interp(np.log2(np.maximum(load.padded, 1.0)), np.log2(gain.tokens), np.arange(len(gain.tokens)))
    low = np.minimum(places.astype(np.int64), max(0, len(gain.tokens) - 2))
    high = np.minimum(low + 1, len(gain.tokens) - 1)
    part = (places - low)[:, None, None]

    def table(saved: Array, used: Overlap) -> Array:
        rows = saved[end, low] * (1.0 - part) + saved[end, high] * part
        return _with_waits(rows, load, max(1, len(used.nano_batches)))

    least = [overlap.least_tokens(prompts=knot > 0) for knot in range(gain.saved.shape[3])]  # the first: no prompts
    enough = (np.arange(len(load.padded))[:, None] >= least)[:, None, :]
    small = 0.0 if gain.small is None else table(gain.small, overlap.fallback)
    return np.asarray(np.where(enough, table(gain.saved, overlap), small))


def _with_waits(saved: Array, load: StageLoad, batches: int) -> Array:
    """The share of the whole step, waits included: each nano-batch launches its own kernels; no step ends sooner."""
    ratios = [np.append(0.0, shares / np.maximum(1.0 - shares, 1e-12)) for shares in (DECODE_SHARES, PREFILL_SHARES)]
    dense_s, launch_s, base_s = (one[:, None, None] for one in (load.dense_s, load.launch_s, load.base_s))
    kernels_s = dense_s + load.shared_s[:, None, None]
    attention_s = (ratios[0][:, None] + ratios[1]) * kernels_s
    launched_s = batches * launch_s
    waits_s = np.maximum(launched_s - dense_s, 0.0)
    least_s = np.maximum((1.0 - saved) * (kernels_s + attention_s) + waits_s, launched_s)
    serial_s = base_s + attention_s
    return np.asarray((serial_s - load.gap_s[:, None, None] - least_s) / np.maximum(serial_s, 1e-30))


def leap_table(decode_s: Array, gain: Array, base_s: Array) -> Array:
    """[D, K] decode attention less what the overlap saves of a step of D decodes and nothing else.

    decode_s [D, K]; gain [T, U, V], base_s [T]: of the only stage, T > D - 1.
    """
    base = base_s[: len(decode_s), None]
    share = decode_s / np.maximum(base + decode_s, 1e-30)
    place = share * (len(DECODE_SHARES) - 1)
    low = 1 + np.minimum(place.astype(np.int64), len(DECODE_SHARES) - 2)
    row = np.arange(len(decode_s))[:, None]
    left, right = gain[row, low, 0], gain[row, low + 1, 0]
    return np.asarray(decode_s - (left + (right - left) * (place + 1 - low)) * (base + decode_s))
