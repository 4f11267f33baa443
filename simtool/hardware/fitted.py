"""The catalogue's cost model: fitted profiles where they exist, transferred ones elsewhere, a roofline for the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.hardware.cluster import NodeGroup
from simtool.hardware.collectives import CollectiveModel, collective_model
from simtool.hardware.cost import WEAKEST_LAST, Cost, Provenance
from simtool.hardware.device import Device, device_names, load_device
from simtool.hardware.fitted_process import GaussianProcess
from simtool.hardware.fitted_residual import TOLERATED_OCTAVES
from simtool.hardware.fitted_work import FAMILY_TERMS, STORED_BYTES, Dims
from simtool.hardware.kernel_profile import FamilyFit, KernelProfile
from simtool.hardware.own_profiles import with_file
from simtool.hardware.profile_choice import Choice, choose, computes_in
from simtool.hardware.profile_file import load_shipped_profiles
from simtool.hardware.received_experts import cheaper, gathered_experts, local_experts
from simtool.hardware.roofline import RooflineLaw, Work, floor_seconds, regimes
from simtool.hardware.transfer import PooledFit, transfer
from simtool.hardware.transfer_file import Kind, load_shipped_transfers
from simtool.models.operators import Operator

Array = NDArray[np.float64]
LIBRARIES = ("vllm", "sglang", "trtllm", "torch")

# A kernel nobody measured for us. The shipped GEMM fits of H200, A100 and L40S lie (10% to 90%) at launch 3.4-13 us,
# compute 0.47-0.94, memory 0.75-0.88, exponent 1.0-2.5; the interval is the p95 of laws without residual, about 2x.
DEFAULT_LAW = RooflineLaw(launch_s=3e-6, compute_efficiency=0.7, memory_efficiency=0.8, exponent=1.5)
DEFAULT_INTERVAL = (np.log(0.6), np.log(1.8))
# Memory-bound kernels where no profile is loaded: the shipped A40 fit (Vidur's norms, rotary, activations, sums).
ELEMENTWISE_LAW = RooflineLaw(launch_s=2.281e-6, compute_efficiency=0.7, memory_efficiency=0.7472, exponent=2.661)
# Tables repeat one call, so up to a cache's size (96 MB on an L40S) its weights or KV stay there; between two layers of
# a real step they do not. Prices are never below the operator's bytes at this share of the bandwidth: the largest that
# layer profiles reach beyond the cache (RTX 4090, LLMServingSim: 0.915; H200 and A100 tables: 0.80-0.94).
COLD_MEMORY_EFFICIENCY = 0.92
# A step with prefill chunks runs its decodes in the same FlashAttention 2 kernel, which then does not pack the g query
# heads of a KV head: decode attention takes g^0.5 times its time alone. vLLM uses it on Ampere, Ada and consumer
# Blackwell. `python -m simtool.calibration.fit_mixed_attention` (LLMServingSim's layer tables, mixed rows): fitted with
# g = 8, held out with g = 4, where the median error falls from 26-38% to 12-18%.
MIXED_DECODE_EXPONENT = 0.5
FLASH_ATTENTION_2 = ("8.", "12.")  # compute capabilities
MEMORY_BOUND = frozenset({"elementwise", "embedding", "sampling", "recurrent"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedCostModel:
    """Prices operators for one device, its links and a kernel library. `price` is vectorised over batch columns.

    transfers: the pooled laws that price what the device's own profiles lack. choices caches which fit
    serves a (family, dtype); it lives and dies with this object.
    """

    device: Device
    group: NodeGroup
    library: str
    profiles: tuple[KernelProfile, ...]
    devices: Mapping[str, Device]
    collectives: CollectiveModel
    transfers: Mapping[Kind, PooledFit] = field(default_factory=dict)
    choices: dict[tuple[str, str], Choice | None] = field(default_factory=dict, compare=False)

    def price(self, operator: Operator) -> Cost:
        """Seconds a call of `operator`, for its whole column [b], with its 90% interval. 0 s where nothing is done."""
        if operator.family == "collective":
            return self.collectives.price_operator(operator)
        if "received" in operator.dims:
            return cheaper(self._kernel(local_experts(operator)), self._kernel(gathered_experts(operator)))
        cost = self._kernel(operator)
        if "beside_prefill" not in operator.dims or not self._fuses_attention():
            return cost
        group = operator.dims["heads"] / operator.dims["kv_heads"]
        slower = np.where(operator.dims["beside_prefill"] > 0, group**MIXED_DECODE_EXPONENT, 1.0)
        return _slower(cost, slower, "interpolated")

    def _fuses_attention(self) -> bool:
        return self.library == "vllm" and self.device.compute_capability.startswith(FLASH_ATTENTION_2)

    def _kernel(self, operator: Operator) -> Cost:
        memory_bound = operator.family in MEMORY_BOUND
        family, dtype = self._memory_bound(operator) if memory_bound else (operator.family, operator.dtype)
        if memory_bound or set(operator.dims) >= _REQUIRED.get(family, frozenset({"not fitted"})):
            choice = self._choice(family, dtype)
            if choice is not None and choice.fit.skew and "kv_max" in operator.dims:
                return self._skewed(operator, choice)
            if choice is not None:
                return self._chosen(operator, choice)
        return self._bare(operator)

    def _memory_bound(self, operator: Operator) -> tuple[str, str]:
        """The (family, dtype) that prices bytes: the operator's own where it was measured here, else elementwise."""
        for profile in self.profiles:
            if (profile.device, profile.library) != (self.device.name, self.library):
                continue
            for family in (operator.family, "elementwise"):
                held = [dtype for name, dtype in profile.fits if name == family]
                if held:
                    return family, operator.dtype if operator.dtype in held else held[0]
        return "elementwise", "bf16"

    def _skewed(self, operator: Operator, choice: Choice) -> Cost:
        """A decode batch whose longest length is kv_max: part of the way from the mean length's time to that one's."""
        mean = self._chosen(operator, choice)
        longest = np.maximum(operator.dims["kv_max"], operator.dims["kv_len"])
        alone = self._chosen(replace(operator, dims={**operator.dims, "kv_len": longest}), choice)
        excess = alone.seconds / np.where(mean.seconds > 0, mean.seconds, 1.0) - 1.0
        kind: Provenance = "interpolated" if alone.provenance == "measured" else alone.provenance
        return _slower(mean, 1.0 + choice.fit.skew * np.maximum(excess, 0.0), kind)

    def _choice(self, family: str, dtype: str) -> Choice | None:
        if dtype not in STORED_BYTES:
            raise InputError(dtype, "is no known operator dtype", f"one of {', '.join(sorted(STORED_BYTES))}")
        key = (family, dtype)
        if key not in self.choices:
            self.choices[key] = choose(self.device, self.library, family, dtype, self.profiles, self.devices)
        return self.choices[key]

    def _chosen(self, operator: Operator, choice: Choice) -> Cost:
        pooled = self.transfers.get((choice.fit.library, choice.fit.family, choice.fit.dtype))
        if choice.same_device or choice.fit.note or pooled is None:
            return self._fitted(operator, choice)
        return self._transferred(operator, choice, pooled)

    def _fitted(self, operator: Operator, choice: Choice) -> Cost:
        fit, terms = choice.fit, FAMILY_TERMS[choice.fit.family]
        launches = max(operator.launches, 1) if fit.family == "elementwise" else 1  # others are fitted as a whole
        dims = _float_dims(operator, launches)
        work, features = terms.work(dims, choice.stored), terms.features(dims)
        peak, bandwidth = self._rates(choice)
        seconds = fit.law.seconds(work, peak, bandwidth)
        outside, deviation = np.full(len(seconds), np.inf), np.ones(len(seconds))
        if fit.residual is not None:
            correction, deviation, outside = fit.residual.evaluate(features)
            outside = np.maximum(outside, terms.beyond(dims))
            if choice.same_device or fit.family not in MEMORY_BOUND:  # a cache's share is the device's own
                seconds = seconds * np.exp(correction)
        cold = fit.family not in MEMORY_BOUND or not choice.same_device
        if cold and self.device.catalogued:  # another's rates are what cold operands reached
            seconds = np.maximum(seconds, work.hbm_bytes / (COLD_MEMORY_EFFICIENCY * bandwidth))
        seconds = seconds * launches
        busy = seconds > 0
        beyond = np.maximum(outside - TOLERATED_OCTAVES, 0.0) * busy
        low, high = _interval(fit, regimes(fit.law, work, peak, bandwidth), deviation, beyond, widen=not choice.own)
        kind: Provenance = "interpolated" if choice.own and operator.family != "recurrent" else "transferred"
        if bool(np.any(beyond > 0)):
            kind = "roofline"
        elif choice.own and fit.family not in MEMORY_BOUND and isinstance(fit.residual, GaussianProcess):
            kind = "measured" if fit.residual.holds(features) else kind
        source = f"{fit.device}/{fit.library}/{fit.family}/{fit.dtype}"
        return Cost(
            seconds=seconds,
            lower=seconds * np.exp(low),
            upper=seconds * np.exp(high),
            roofline_s=self._floor(operator, work) * launches,
            provenance=kind,
            source=with_file(f"{source} ({choice.reason})" if choice.reason else source, fit.file),
        )

    def _transferred(self, operator: Operator, choice: Choice, pooled: PooledFit) -> Cost:
        """The pooled law, corrected by how every measured device departs from it; no faster than the specification."""
        fit, key = choice.fit, (choice.fit.family, choice.fit.dtype)
        launches = max(operator.launches, 1) if fit.family == "elementwise" else 1
        dims = _float_dims(operator, launches)
        same = [p.fits[key] for p in self.profiles if p.library == fit.library and key in p.fits]
        sources = [(self.devices[other.device], other) for other in same if not other.note]
        work = FAMILY_TERMS[fit.family].work(dims, choice.stored)
        found = transfer(pooled, sources, self.device, dims, choice.stored, choice.compute, exact=choice.exact)
        peak, bandwidth = self.device.peak_flops(choice.compute), self.device.hbm_bytes_per_s
        least = floor_seconds(work, peak, COLD_MEMORY_EFFICIENCY * bandwidth)
        busy = work.flops + work.hbm_bytes > 0
        seconds = np.where(busy, np.maximum(np.exp(found.log_seconds), least), 0.0) * launches
        outside = np.maximum(found.outside, FAMILY_TERMS[fit.family].beyond(dims))
        beyond = np.maximum(outside - TOLERATED_OCTAVES, 0.0) * busy
        ends = found.log_interval + np.minimum(beyond, 3.0)[:, None] * fit.law_interval  # as in _interval
        names = ", ".join(dict.fromkeys(with_file(other.device, other.file) for _, other in sources))
        return Cost(
            seconds=seconds,
            lower=seconds * np.exp(ends[:, 0]),
            upper=seconds * np.exp(ends[:, 1]),
            roofline_s=self._floor(operator, work) * launches,
            provenance="roofline" if bool(np.any(beyond > 0)) else "transferred",
            source=f"{fit.library}/{fit.family}/{fit.dtype} of {names} ({choice.reason})",
        )

    def _rates(self, choice: Choice) -> tuple[float, float]:
        """Peak FLOP/s and bytes/s to use with a fit: its own, scaled by the two devices' specification ratios."""
        fit = choice.fit
        source = self.devices[fit.device]
        ratio = self.device.peak_flops(choice.compute) / source.peak_flops(choice.fit_compute)
        return fit.peak_flops * ratio, fit.bandwidth_bytes_per_s * self.device.hbm_bytes_per_s / source.hbm_bytes_per_s

    def _floor(self, operator: Operator, work: Work) -> Array:
        """The specification's floor for the work that was priced (experts: those that the assumed routing reads)."""
        peak = self.device.peak_flops(computes_in(operator.family, operator.dtype))
        return floor_seconds(work, peak, self.device.hbm_bytes_per_s)

    def _bare(self, operator: Operator) -> Cost:
        """A kernel without any profile: the default law on the operator's own FLOPs and bytes."""
        memory_bound = operator.family in MEMORY_BOUND
        law = ELEMENTWISE_LAW if memory_bound else DEFAULT_LAW
        flops, moved = np.broadcast_arrays(operator.flops, operator.hbm_bytes)
        dtype = computes_in(operator.family, operator.dtype)
        launches = max(operator.launches, 1)
        share = Work(flops=flops / launches, hbm_bytes=moved / launches)
        seconds = law.seconds(share, self.device.peak_flops(dtype), self.device.hbm_bytes_per_s) * launches
        return Cost(
            seconds=seconds,
            lower=seconds * np.exp(DEFAULT_INTERVAL[0]),
            upper=seconds * np.exp(DEFAULT_INTERVAL[1]),
            roofline_s=self._floor(operator, share) * launches,
            provenance="roofline",
            source="memory-bound law" if memory_bound else "default roofline law",
        )


_REQUIRED: Mapping[str, frozenset[str]] = {
    "gemm": frozenset({"m", "n", "k"}),
    "moe": frozenset({"tokens", "hidden", "inter", "top_k", "num_experts", "moe_tp", "moe_ep"}),
    "attention_prefill": frozenset({"batch", "seq", "prefix", "heads", "kv_heads", "head_dim", "window"}),
    "attention_decode": frozenset({"batch", "kv_len", "heads", "kv_heads", "head_dim", "window"}),
    "mla_prefill": frozenset({"batch", "seq", "prefix", "heads"}),
    "mla_decode": frozenset({"batch", "kv_len", "heads"}),
}


def _float_dims(operator: Operator, launches: int) -> Dims:
    """The dims as float arrays of one shape [b]; for experts also the matrices each has, from the operator's FLOPs."""
    if operator.family in MEMORY_BOUND:
        moved = np.atleast_1d(np.asarray(operator.hbm_bytes, dtype=np.float64)) / launches
        return {"bytes": moved, "kind": np.broadcast_to(operator.dims.get("kind", np.zeros(1)), moved.shape)}
    names = list(operator.dims)
    arrays = np.broadcast_arrays(*[np.atleast_1d(np.asarray(operator.dims[n], dtype=np.float64)) for n in names])
    dims = dict(zip(names, arrays, strict=True))
    if operator.family == "moe":
        rows = dims["tokens"] * dims["top_k"] / dims["moe_ep"]
        per_matrix = 2.0 * rows * dims["hidden"] * dims["inter"] / dims["moe_tp"]
        ratio = operator.flops / np.maximum(per_matrix, 1.0)
        dims["matrices"] = np.where(per_matrix > 0, np.clip(np.round(ratio), 2.0, 3.0), 3.0)
    return dims


def _slower(cost: Cost, factor: Array, kind: Provenance) -> Cost:
    """`cost` times `factor`, known no better than by `kind` where that changes it."""
    weaker = max(cost.provenance, kind, key=WEAKEST_LAST.index) if np.any(factor != 1.0) else cost.provenance
    ends = {name: getattr(cost, name) * factor for name in ("seconds", "lower", "upper")}
    return replace(cost, **ends, provenance=weaker)


def _interval(
    fit: FamilyFit, regime: NDArray[np.intp], deviation: Array, beyond: Array, *, widen: bool
) -> tuple[Array, Array]:
    """Log ends of the 90% interval, [b]: held-out quantiles of the regime each entry is in, in the residual's own
    deviations, wider beyond the calibrated box."""
    low, high = fit.intervals[regime, 0] * deviation, fit.intervals[regime, 1] * deviation
    if widen:
        low, high = np.minimum(low, fit.transfer_interval[0]), np.maximum(high, fit.transfer_interval[1])
    reach = np.minimum(beyond, 3.0)  # the law's own error once for each octave beyond, three at most
    return low + reach * fit.law_interval[0], high + reach * fit.law_interval[1]


def load_cost_model(
    device: Device, cluster: NodeGroup, library: str, own: Sequence[KernelProfile] = ()
) -> FittedCostModel:
    """The cost model of `device` in `cluster` (a node group, for its links) with the shipped profiles.

    library: vllm, sglang, trtllm or torch. Raises InputError for another. own: the user's profiles; each comes before
    the shipped ones of its device and library. A device that the catalogue lacks is priced by them alone.
    """
    if library not in LIBRARIES:
        raise InputError(library, "is no known kernel library", f"one of {', '.join(LIBRARIES)}")
    profiles, devices = _evidence(device, own)
    curves = [curve for profile in own if profile.device == device.name for curve in profile.curves]
    return FittedCostModel(
        device=device,
        group=cluster,
        library=library,
        profiles=profiles,
        devices=devices,
        collectives=collective_model(cluster, library, curves),
        transfers=load_shipped_transfers() if device.catalogued else {},
    )


def _evidence(device: Device, own: Sequence[KernelProfile]) -> tuple[tuple[KernelProfile, ...], Mapping[str, Device]]:
    """The profiles that may price `device`, and their devices. Without a specification a device is priced by its own
    profiles alone, and prices no other: nothing says how its rates compare with a datasheet's.
    """
    if not device.catalogued:
        return tuple(profile for profile in own if profile.device == device.name), {device.name: device}
    known = device_names()
    profiles = (*(profile for profile in own if profile.device in known), *load_shipped_profiles())
    return profiles, {name: load_device(name) for name in sorted({profile.device for profile in profiles})}
