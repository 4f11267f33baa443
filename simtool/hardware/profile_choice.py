"""Which fit prices an operator: the device's own, another library's, another device's, or a wider dtype's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from simtool.hardware.device import Device
from simtool.hardware.profile_file import FamilyFit, KernelProfile

# Formats of the same storage width whose kernels do the same work; the first with a fit is used.
SAME_WIDTH: Mapping[str, tuple[str, ...]] = {
    "bf16": ("bf16",),
    "fp16": ("bf16",),
    "fp32": ("bf16",),
    "fp8": ("fp8", "fp8_block"),
    "fp8_block": ("fp8_block", "fp8"),
    "int8": ("int8", "int8_wo", "fp8"),
    "int4": ("int4", "mxfp4"),
    "mxfp4": ("mxfp4", "int4"),
    "nvfp4": ("nvfp4", "fp4"),
    "fp4": ("fp4", "mxfp4"),
}
SAME_KERNELS = frozenset({("bf16", "fp16"), ("fp8_block", "fp8"), ("fp8", "fp8_block")})
LIBRARY_ORDER = ("vllm", "sglang", "trtllm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A fit to price with. own: same device and library and the asked dtype, so its interval holds as it is.

    same_device: the efficiencies are the device's own. dtype: the storage dtype to count bytes with.
    """

    fit: FamilyFit
    own: bool
    same_device: bool
    weight_only: bool
    reason: str


def choose(
    device: Device,
    library: str,
    family: str,
    dtype: str,
    profiles: tuple[KernelProfile, ...],
    devices: Mapping[str, Device],
) -> Choice | None:
    """The best available fit for the operator, or None when no profile has the family at all."""
    aliases = SAME_WIDTH.get(dtype, (dtype, "bf16"))
    if family == "moe" and dtype == "fp8":  # published FP8 experts are block-scaled (DeepSeek, Qwen3, MiniMax)
        aliases = SAME_WIDTH["fp8_block"]
    for profile in _by_nearness(device, library, profiles, devices):
        for alias in aliases:
            fit = profile.fits.get((family, alias))
            if fit is not None and _comparable(device, devices[profile.device], alias):
                return _described(fit, device, library, dtype, weight_only=False)
    for profile in _by_nearness(device, library, profiles, devices):
        fit = profile.fits.get((family, "bf16"))
        if fit is not None:
            return _described(fit, device, library, dtype, weight_only=dtype not in ("bf16", "fp16", "fp32"))
    return None


def _comparable(device: Device, source: Device, dtype: str) -> bool:
    """Both devices compute in the same width for `dtype` (an fp8 kernel of Hopper says nothing of Ampere)."""
    if device.name == source.name or dtype in ("bf16", "mxfp4", "int4", "int8_wo"):
        return True
    stored = {"fp8_block": "fp8"}.get(dtype, dtype)
    return device.compute_dtype(stored) == source.compute_dtype(stored)


def _described(fit: FamilyFit, device: Device, library: str, dtype: str, *, weight_only: bool) -> Choice:
    same_device = fit.device == device.name
    exact = fit.dtype == dtype or (fit.dtype, dtype) in SAME_KERNELS
    reasons = []
    if not same_device:
        reasons.append(f"transferred from {fit.device} by specification ratios")
    if fit.library != library:
        reasons.append(f"no {library} table, {fit.library}'s used")
    if weight_only:
        reasons.append(f"{dtype} weights widened to bf16: small weights read, bf16 compute")
    elif not exact:
        reasons.append(f"{dtype} priced as {fit.dtype}")
    if fit.note:
        reasons.append(fit.note)
    own = same_device and fit.library == library and exact
    return Choice(fit=fit, own=own, same_device=same_device, weight_only=weight_only, reason="; ".join(reasons))


def _by_nearness(
    device: Device, library: str, profiles: tuple[KernelProfile, ...], devices: Mapping[str, Device]
) -> Iterator[KernelProfile]:
    """Own device first, then same compute capability, then architecture, then machine balance and size."""

    def distance(profile: KernelProfile) -> tuple[float, ...]:
        source = devices[profile.device]
        same = profile.device == device.name
        unlike = source.compute_capability != device.compute_capability
        other = source.architecture != device.architecture
        bandwidth = abs(math.log(source.hbm_bytes_per_s / device.hbm_bytes_per_s))
        compute = abs(math.log(source.peak_flops("fp16") / device.peak_flops("fp16")))
        order = LIBRARY_ORDER.index(profile.library) if profile.library in LIBRARY_ORDER else len(LIBRARY_ORDER)
        rank = -1 if profile.library == library else order
        return (float(not same), float(unlike), float(other), bandwidth + compute, float(rank))

    return iter(sorted(profiles, key=distance))
