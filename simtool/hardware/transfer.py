"""Pricing a device nobody measured: one law over all measured devices, corrected by how each of them departs from it.

    log seconds(target) = log P(target) + sum_s w_s (log fit_s - log P(s)) / (w_0 + sum_s w_s)

P is the pooled law of a library, family and dtype: between devices only specifications change in it. s runs over the
measured devices; fit_s is that device's own law and residual at the same dims. Devices with like kernels dominate: w_s
is the inverse of a squared distance, fading where s was not measured. From the same chip this is its fit times the
pooled law's ratio; with none like it, it tends to the pooled law.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.hardware.device import Device
from simtool.hardware.fitted_work import FAMILY_TERMS, Dims
from simtool.hardware.kernel_profile import FamilyFit
from simtool.hardware.profile_choice import computes_in
from simtool.hardware.roofline import Work

Array = NDArray[np.float64]
Sources = Sequence[tuple[Device, FamilyFit]]  # measured devices with their fits of one library, family and dtype

# Dense 16-bit W per TFLOP/s of a compute capability at which devices reach the efficiencies that the law shares (A100,
# A40, RTX PRO 6000, H200). A board with less power a FLOP sustains a lower clock: power goes with the clock's cube.
# Nothing is fitted here: the cube root alone takes RTX 4090's compute-bound GEMMs from 25% too slow to within 4%.
SUSTAINED_W_PER_TFLOPS: Mapping[str, float] = {"8.0": 1.28, "8.6": 2.0, "8.9": 1.19, "12.0": 1.19, "9.0": 0.707}
POWER_SHARES = (0.7, 1.4)
CACHE_SHARPNESS = 4.0  # how fast hits fall once the bytes outgrow the cache; 1 to 8 fit alike
BY_MULTIPROCESSOR = frozenset({"attention_prefill", "attention_decode", "mla_prefill"})  # items are thread blocks
# Launches as good as alike on any clock: A40, RTX 4090 and RTX PRO 6000 take 2.9, 2.5, 2.7 us at boost clocks of 1.7,
# 2.5 and 2.6 GHz. Attention and GEMMs set up in cycles (devices left out: 21% against 26% for attention in seconds).
LAUNCHED_IN_SECONDS, USUAL_HZ = frozenset({"elementwise"}), 2e9
TAILED = frozenset({"attention_prefill"})  # a block computes long, so too few of them leave multiprocessors idle
# Squared distances, w_0, and the octaves outside its box at which a source's weight has fallen to 1/e. Leaving devices
# out hardly tells: halving or doubling any of them changes the median error by less than half a point.
NEAREST, OTHER_ARCHITECTURE, PRIOR_WEIGHT, FADE_OCTAVES = 0.01, 4.0, 0.2, 1.0
# Interval: from the nearest source's own to that of devices left out, by the root of the squared distance. The least
# share is reasoned, not measured (no two tables come from one chip): another memory, board power or driver.
FULL_DISTANCE2, LEAST_SHARE = 2.0, 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferLaw:
    """The smooth roofline with its constants in units that devices share.

    launch_cycles: clock cycles, of USUAL_HZ for LAUNCHED_IN_SECONDS. item_cycles: of one multiprocessor
    (BY_MULTIPROCESSOR) or of the device's clock.
    cache_bytes_per_cycle: a multiprocessor's, from L2. cache_share: of L2, the working set half of which still hits.
    tail: multiprocessors' worth of blocks by which a kernel of TAILED is longer than its FLOPs.
    """

    launch_cycles: float
    compute_efficiency: float
    memory_efficiency: float
    exponent: float
    item_cycles: float
    serial_efficiency: float
    cache_bytes_per_cycle: float
    cache_share: float
    tail: float

    def terms(self, work: Work, device: Device, family: str, compute: str) -> Array:
        """Seconds of launch, memory and compute, [3, b], in the order of REGIMES. compute: the dtype of the peak.

        As the tables were measured: repeated calls find in L2 what fits there.
        """
        flops, moved, items = np.broadcast_arrays(work.flops, work.hbm_bytes, work.items)
        memory = moved / (self.memory_efficiency * device.hbm_bytes_per_s)
        hits = 1.0 / (1.0 + (moved / (self.cache_share * device.l2_bytes)) ** CACHE_SHARPNESS)
        cached = moved / (self.cache_bytes_per_cycle * device.sm_count * device.boost_hz)
        memory = (1.0 - hits) * memory + hits * np.minimum(memory, cached)
        busy = flops / (self.compute_efficiency * device.peak_flops(compute) * power_share(device))
        if family in TAILED:
            busy = busy * (1.0 + self.tail * device.sm_count / np.maximum(items, 1.0))
        clock = USUAL_HZ if family in LAUNCHED_IN_SECONDS else device.boost_hz
        return np.stack([np.full(flops.shape, self.launch_cycles / clock), memory, busy])

    def log_seconds(self, work: Work, device: Device, family: str, compute: str) -> Array:
        """Log seconds of one call on `device`, [b]; finite even without any work."""
        terms = self.terms(work, device, family, compute)
        top = terms.max(axis=0)
        soft = top * ((terms / top) ** self.exponent).sum(axis=0) ** (1.0 / self.exponent)
        rate = device.boost_hz * (device.sm_count if family in BY_MULTIPROCESSOR else 1.0)
        serial = work.serial_bytes / (self.serial_efficiency * device.hbm_bytes_per_s)
        return np.asarray(np.log(soft + work.items * self.item_cycles / rate + serial))


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledFit:
    """A pooled law and what leaving devices out says of it.

    left_out: [regime, 2] ends of the 90% log interval on a device like none measured. substituted: [2] what a dtype
    without tables adds, priced by a wider one's law.
    """

    law: TransferLaw
    left_out: Array
    substituted: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Transferred:
    """Log seconds on a device nobody measured, [b], with log_interval [b, 2] around them.

    outside: octaves beyond what any source measured, [b].
    """

    log_seconds: Array
    log_interval: Array
    outside: Array


def power_share(device: Device) -> float:
    """Sustained clock relative to that of the devices behind the shared efficiencies; 1 where nothing is known."""
    usual = SUSTAINED_W_PER_TFLOPS.get(device.compute_capability)
    if usual is None:
        return 1.0
    supplied = device.tdp_w / (device.peak_flops("bf16") / 1e12)
    return float(np.clip((supplied / usual) ** (1.0 / 3.0), *POWER_SHARES))


def kernel_distance2(one: Device, other: Device) -> float:
    """How unlike the kernels of two devices are: squared log ratios of multiprocessors and cache, and the architecture.

    It knows no rate: else a faster target might shift its sources' weights and come out slower.
    """
    unlike = OTHER_ARCHITECTURE if one.compute_capability != other.compute_capability else 0.0
    multiprocessors, cache = np.log(one.sm_count / other.sm_count), np.log(one.l2_bytes / other.l2_bytes)
    return float(multiprocessors**2 + cache**2 + unlike)


def specification_distance2(one: Device, other: Device) -> float:
    """How far apart two devices are: squared log ratios of compute and bandwidth, and 1 for another architecture."""
    compute = np.log(one.peak_flops("bf16") / other.peak_flops("bf16"))
    bandwidth = np.log(one.hbm_bytes_per_s / other.hbm_bytes_per_s)
    return float(compute**2 + bandwidth**2 + (one.compute_capability != other.compute_capability))


def transfer_interval(own: Array, left_out: Array, distance2: float) -> Array:
    """Log ends of the interval, [b, 2]: own of the nearest source, left_out of devices like none measured."""
    share = np.sqrt(np.clip(distance2 / FULL_DISTANCE2, LEAST_SHARE**2, 1.0))
    return np.asarray(own + share * (left_out - own))


def transfer(
    pooled: PooledFit, sources: Sources, target: Device, dims: Dims, stored: str, compute: str, *, exact: bool
) -> Transferred:
    """Price `dims` on `target` from the pooled law and the sources' fits, which are asked in their own dtype.

    stored: the dtype of the bytes on the target; compute: that of its peak; exact: whether it is the sources'.
    """
    family, dtype = sources[0][1].family, sources[0][1].dtype
    terms, law = FAMILY_TERMS[family], pooled.law
    own_work, features, work = terms.work(dims, dtype), terms.features(dims), terms.work(dims, stored)
    nearest = min(specification_distance2(device, target) for device, _ in sources)
    rows = len(features)
    total, weights = np.zeros(rows), np.full(rows, PRIOR_WEIGHT)
    least, ends = np.full(rows, np.inf), np.zeros((rows, 2))
    regime = np.broadcast_to(law.terms(work, target, family, compute).argmax(axis=0), rows)
    for device, fit in reversed(sources):  # of sources as near as each other the first one's interval is used
        own, deviation, outside = _fitted_log(fit, own_work, features)
        weight = np.exp(-np.square(np.maximum(outside, 0.0) / FADE_OCTAVES))
        weight = weight / (NEAREST + kernel_distance2(device, target))
        total = total + weight * (own - law.log_seconds(own_work, device, family, computes_in(family, dtype)))
        weights, least = weights + weight, np.minimum(least, outside)
        if specification_distance2(device, target) == nearest:
            ends = fit.intervals[regime] * deviation[:, None]
    ends = transfer_interval(ends, pooled.left_out[regime], nearest)
    ends = np.stack([np.minimum(ends[:, 0], 0.0), np.maximum(ends[:, 1], 0.0)], axis=1)
    if not exact:
        ends = np.copysign(np.hypot(ends, pooled.substituted), (-1.0, 1.0))
    found = law.log_seconds(work, target, family, compute) + total / weights
    return Transferred(log_seconds=found, log_interval=ends, outside=least)


def _fitted_log(fit: FamilyFit, work: Work, features: Array) -> tuple[Array, Array, Array]:
    """A source's own log seconds, its residual's deviation, and octaves outside what it measured, each [b]."""
    seconds = np.broadcast_to(fit.law.seconds(work, fit.peak_flops, fit.bandwidth_bytes_per_s), len(features))
    own = np.log(np.where(seconds > 0, seconds, 1.0))  # no work: whoever asks prices it 0
    if fit.residual is None:
        return own, np.ones(len(own)), np.zeros(len(own))
    correction, deviation, outside = fit.residual.evaluate(features)
    return own + correction, deviation, outside
