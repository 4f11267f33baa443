"""Which fit prices an operator: the device's own, another library's, another device's, or a wider dtype's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from simtool.hardware.device import Device
from simtool.hardware.kernel_profile import FamilyFit, KernelProfile

# Formats of the same storage width whose kernels do the same work; the first with a fit is used.
SAME_WIDTH: Mapping[str, tuple[str, ...]] = {
    "bf16": ("bf16", "fp16"),
    "fp16": ("fp16", "bf16"),
    "fp32": ("fp32", "bf16"),
    "fp8": ("fp8", "fp8_block"),
    "fp8_block": ("fp8_block", "fp8"),
    "int8": ("int8", "int8_wo", "fp8"),
    "int4": ("int4", "mxfp4"),
    "mxfp4": ("mxfp4", "int4"),
    "nvfp4": ("nvfp4", "fp4"),
    "fp4": ("fp4", "mxfp4"),
}
SAME_KERNELS = frozenset({("bf16", "fp16"), ("fp16", "bf16"), ("fp8_block", "fp8"), ("fp8", "fp8_block")})
# Bytes of a dtype when it is only stored: no activation is quantised.
WEIGHT_ONLY: Mapping[str, str] = {
    "fp16": "bf16",
    "fp32": "bf16",
    "fp8": "int8_wo",
    "fp8_block": "int8_wo",
    "int8": "int8_wo",
    "nvfp4": "mxfp4",
    "fp4": "mxfp4",
}
LIBRARY_ORDER = ("vllm", "sglang", "trtllm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A fit to price with, and how.

    own: same device and library and the asked dtype, so its interval holds as it is. same_device: the efficiencies are
    the device's own. exact: the asked dtype, or one with the same kernels. stored: the dtype to count bytes with.
    compute, fit_compute: the dtypes whose peaks on this device and on the fit's device give the compute ratio.
    """

    fit: FamilyFit
    own: bool
    same_device: bool
    exact: bool
    stored: str
    compute: str
    fit_compute: str
    reason: str


def choose(
    device: Device,
    library: str,
    family: str,
    dtype: str,
    profiles: tuple[KernelProfile, ...],
    devices: Mapping[str, Device],
) -> Choice | None:
    """The best available fit for the operator, or None when no profile has the family at all.

    First the same storage width, nearest device first; then a native narrow dtype by its half-rate neighbour (FP4 from
    FP8); last the 16-bit fit with small weights (weight-only kernels, as engines run dtypes a device lacks).
    """
    aliases = aliases_of(family, dtype)
    near = list(_by_nearness(device, library, profiles, devices))
    for profile in near:
        for alias in aliases:
            fit = profile.fits.get((family, alias))
            if fit is not None and _comparable(device, devices[profile.device], alias):
                compute = computes_in(family, alias)
                return _described(fit, device, library, dtype, fit.dtype, compute, compute)
    native_fp4 = dtype in ("nvfp4", "fp4") and device.compute_dtype(dtype) == "fp4" and family in ("gemm", "moe")
    wider = [(source, "nvfp4", "fp4") for source in aliases_of(family, "fp8")] if native_fp4 else []
    for source, stored, compute in [*wider, ("bf16", WEIGHT_ONLY.get(dtype, dtype), "bf16")]:
        for profile in near:
            fit = profile.fits.get((family, source))
            if fit is not None:
                return _described(fit, device, library, dtype, stored, compute, computes_in(family, source))
    return None


def aliases_of(family: str, dtype: str) -> tuple[str, ...]:
    """The dtypes whose fits serve `dtype`, best first."""
    if family == "moe" and dtype == "fp8":  # published FP8 experts are block-scaled (DeepSeek, Qwen3, MiniMax)
        dtype = "fp8_block"
    return SAME_WIDTH.get(dtype, (dtype,))


def computes_in(family: str, dtype: str) -> str:
    """The dtype whose peak a family's kernels run against: attention computes in bf16, weight-only formats too."""
    if family not in ("gemm", "moe") or dtype in ("int4", "mxfp4", "int8_wo"):
        return "bf16"
    return {"fp8_block": "fp8"}.get(dtype, dtype)


def _comparable(device: Device, source: Device, dtype: str) -> bool:
    """Both devices compute in the same width for `dtype` (an fp8 kernel of Hopper says nothing of Ampere)."""
    if device.name == source.name or dtype in ("bf16", "mxfp4", "int4", "int8_wo"):
        return True
    stored = {"fp8_block": "fp8"}.get(dtype, dtype)
    return device.compute_dtype(stored) == source.compute_dtype(stored)


def _described(
    fit: FamilyFit, device: Device, library: str, dtype: str, stored: str, compute: str, fit_compute: str
) -> Choice:
    same_device = fit.device == device.name
    exact = fit.dtype == dtype or (fit.dtype, dtype) in SAME_KERNELS
    reasons = []
    if not same_device:
        reasons.append(f"transferred, nearest {fit.device}")
    if fit.library != library:
        reasons.append(f"no {library} table, {fit.library}'s used")
    if compute != fit_compute:
        reasons.append(f"{dtype} priced as {fit.dtype} at the {compute} peak")
    elif stored != fit.dtype:
        reasons.append(f"{dtype} widened to bf16: small weights or cache read, bf16 compute")
    elif not exact:
        reasons.append(f"{dtype} priced as {fit.dtype}")
    if fit.note:
        reasons.append(fit.note)
    return Choice(
        fit=fit,
        own=same_device and fit.library == library and exact and not fit.note,  # a noted fit is another library's
        same_device=same_device,
        exact=exact,
        stored=stored,
        compute=compute,
        fit_compute=fit_compute,
        reason="; ".join(reasons),
    )


def _by_nearness(
    device: Device, library: str, profiles: tuple[KernelProfile, ...], devices: Mapping[str, Device]
) -> Iterator[KernelProfile]:
    """Own device first, then own library, compute capability, architecture, machine balance and size."""

    def distance(profile: KernelProfile) -> tuple[float, ...]:
        source = devices[profile.device]
        same = profile.device == device.name
        unlike = source.compute_capability != device.compute_capability
        other = source.architecture != device.architecture
        bandwidth = abs(math.log(source.hbm_bytes_per_s / device.hbm_bytes_per_s))
        compute = abs(math.log(source.peak_flops("fp16") / device.peak_flops("fp16")))
        order = LIBRARY_ORDER.index(profile.library) if profile.library in LIBRARY_ORDER else len(LIBRARY_ORDER)
        rank = -1 if profile.library == library else order
        foreign = not same and profile.library != library  # libraries differ more than devices do
        return (float(not same), float(foreign), float(unlike), float(other), bandwidth + compute, float(rank))

    return iter(sorted(profiles, key=distance))
