"""Whether weights and cache fit this machine's memory: a CPU allocates more than there is and is killed later."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from simtool.calibration.executor.options import ExecutorOptions, compute_dtype
from simtool.errors import InfeasibleError
from simtool.models.architecture import ModelArchitecture, WeightDtypes
from simtool.models.memory import kv_bytes_per_token_per_device, weight_bytes_per_device
from simtool.plan import Parallel
from simtool.units import GB

_GROUPS = ("attention", "mlp", "experts", "shared_experts", "embedding", "lm_head", "recurrent", "other")
_CGROUP = Path("/sys/fs/cgroup")


def check_host_memory(arch: ModelArchitecture, parallel: Parallel, options: ExecutorOptions) -> None:
    """Raise InfeasibleError("memory") where CPU ranks of this machine need more than is free. Unknown: no error."""
    free = free_bytes()
    needed = replica_bytes(arch, parallel, options)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", parallel.devices)) / parallel.devices
    if options.device == "cpu" and free is not None and needed * here > free:
        detail = f"weights and KV cache of all ranks take {needed * here / GB:.1f} GB, {free / GB:.1f} GB are free"
        raise InfeasibleError("memory", detail, "fewer KV blocks, fewer layers or a narrower dtype")


def replica_bytes(arch: ModelArchitecture, parallel: Parallel, options: ExecutorOptions) -> float:
    """Weights and KV cache of all ranks, everything in the compute dtype."""
    dtype = compute_dtype(arch, options.dtype)
    layers = tuple(replace(layer, dtypes=None) for layer in arch.layers)
    groups: dict[str, Any] = dict.fromkeys(_GROUPS, dtype)
    plain = replace(arch, layers=layers, dtypes=WeightDtypes(**groups), extra_params=0)
    tokens = (options.num_blocks + 1) * options.block_size
    stages = [
        weight_bytes_per_device(plain, parallel, stage)
        + tokens * kv_bytes_per_token_per_device(plain, parallel, stage, dtype)
        for stage in range(parallel.pp)
    ]
    return sum(stages) * parallel.tp * parallel.dp


def free_bytes() -> float | None:
    """What Linux says is available, at most what the control group leaves; None where nothing says it."""
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found.append(1024.0 * float(next(line for line in lines if line.startswith("MemAvailable")).split()[1]))
    with contextlib.suppress(OSError, ValueError):
        limit, used = (float((_CGROUP / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        found.append(limit - used)
    return min(found) if found else None
