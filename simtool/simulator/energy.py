"""Energy: dynamic joules of a kernel from its work and its time.

Watts above idle, as a share of TDP - idle, grow with what a kernel keeps busy:
    share = min(1, BASE + COMPUTE flops/(peak seconds) + MEMORY bytes/(bandwidth seconds))
Fitted by hand to Splitwise's DGX-A100 measurements (splitwise-sim, data/perf_model.csv, MIT; ISCA'24), Llama-2-70B
fp16: decode at TP 2, 4, 8 uses 62%, 38%, 19% of the bandwidth and draws 0.74, 0.60, 0.44 of TDP; a 512-token prompt at
TP 8 (MFU 31%) draws 0.75 of TDP, at TP 4 (MFU 45%) 1.0. In-sample error up to 6% of TDP; other devices are transferred.
"""

from __future__ import annotations

import numpy as np

from simtool.hardware.device import Device
from simtool.models.operators import Array, Operator

BASE_SHARE, COMPUTE_SHARE, MEMORY_SHARE = 0.18, 1.5, 0.82


def dynamic_joules(operator: Operator, seconds: Array, device: Device) -> Array:
    """Joules above idle of one call of `operator` that takes `seconds` [b] on `device`."""
    compute_s = operator.flops / device.peak_flops(operator.dtype)
    memory_s = operator.hbm_bytes / device.hbm_bytes_per_s
    active_s = BASE_SHARE * seconds + COMPUTE_SHARE * compute_s + MEMORY_SHARE * memory_s
    return np.asarray((device.tdp_w - device.idle_w) * np.minimum(seconds, active_s))
