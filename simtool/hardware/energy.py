"""Energy: watts of a device from what it keeps busy.

    watts = idle + (TDP - idle) * min(1, BASE + COMPUTE * flops/(peak * seconds) + MEMORY * bytes/(bandwidth * seconds))
so a FLOP and a byte each cost a fixed energy, an awake device costs BASE, and the board's power limit caps the sum.
The three shares are fitted to Splitwise's DGX A100 power measurements (calibration/fit_power.py, which also prints the
held-out error); TDP, idle, peak and bandwidth are each device's own, so other devices than A100 are transferred.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtool.hardware.device import Device
from simtool.models.operators import Operator

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerShares:
    """Shares of TDP - idle: base while a kernel runs, compute at 100% of peak FLOP/s, memory at 100% of bandwidth."""

    base: float
    compute: float
    memory: float


# python -m simtool.calibration.fit_power --data DIR: 180 runs of Llama-2-70B (TP 2, 4, 8) and Bloom-176B (TP 8), A100;
# mean power within 1.5% (median) and 4.6% (p95) in-sample, 4.3% and 11.7% with one model and TP degree left out.
FITTED_SHARES = PowerShares(base=0.162, compute=1.374, memory=0.867)


def busy_watts(device: Device, compute_share: Array, memory_share: Array, shares: PowerShares = FITTED_SHARES) -> Array:
    """Watts of a device that runs kernels at these shares of its peak FLOP/s and bandwidth. Idle power included."""
    load = shares.base + shares.compute * compute_share + shares.memory * memory_share
    return np.asarray(device.idle_w + (device.tdp_w - device.idle_w) * np.minimum(1.0, load))


def joules_per_flop(device: Device, dtype: str, shares: PowerShares = FITTED_SHARES) -> float:
    """Dynamic joules a FLOP in `dtype`."""
    return shares.compute * (device.tdp_w - device.idle_w) / device.peak_flops(dtype)


def joules_per_byte(device: Device, shares: PowerShares = FITTED_SHARES) -> float:
    """Dynamic joules a byte of device memory traffic."""
    return shares.memory * (device.tdp_w - device.idle_w) / device.hbm_bytes_per_s


def dynamic_joules(operator: Operator, seconds: Array, device: Device) -> Array:
    """Joules above idle of one call of `operator` that takes `seconds` [b] on `device`."""
    work_j = joules_per_flop(device, operator.dtype) * operator.flops + joules_per_byte(device) * operator.hbm_bytes
    limit_w = device.tdp_w - device.idle_w
    return np.asarray(np.minimum(limit_w * seconds, FITTED_SHARES.base * limit_w * seconds + work_j))


def describe_energy(device: Device) -> dict[str, float]:
    """The power model's numbers for `device`, as plain JSON values with the unit in each key."""
    limit_w = device.tdp_w - device.idle_w
    return {
        "idle_w": device.idle_w,
        "awake_w": device.idle_w + FITTED_SHARES.base * limit_w,
        "tdp_w": device.tdp_w,
        "hbm_pj_per_byte": joules_per_byte(device) * 1e12,
        **{f"{dtype}_pj_per_flop": joules_per_flop(device, dtype) * 1e12 for dtype in device.flops},
    }
