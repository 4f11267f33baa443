"""What a machine is, beside how fast it is: facts for the journal, from which its profile describes the device.

A GPU is a device with its own memory. On a CPU a device is one process of `threads` threads; the machine has as many
of them as cores that this process may use, and they share its memory.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import torch

from simtool.calibration.profiling.cpu_setup import cache_bytes

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def device_facts(device: str, label: str) -> dict[str, str | float]:
    """The facts under the names that `simtool.calibration.described` reads. label: what the device calls itself."""
    facts = _cpu_facts() if device == "cpu" else _gpu_facts()
    return {"device_kind": "cpu" if device == "cpu" else "gpu", "device_label": label, **facts}


def _cpu_facts() -> dict[str, str | float]:
    threads = torch.get_num_threads()
    return {
        "device_memory_bytes": float(memory_bytes()),
        "device_count": float(max(1, len(os.sched_getaffinity(0)) // threads)),
        "device_units": float(threads),
        "device_cache_bytes": float(cache_bytes()),
    }


def _gpu_facts() -> dict[str, str | float]:
    """What torch says of the first GPU; another build of torch may know less."""
    found = torch.cuda.get_device_properties(0)
    facts: dict[str, str | float] = {
        "device_memory_bytes": float(found.total_memory),
        "device_count": float(torch.cuda.device_count()),
        "device_units": float(found.multi_processor_count),
        "device_capability": ".".join(str(part) for part in torch.cuda.get_device_capability(0)),
    }
    cache, clock_khz = getattr(found, "L2_cache_size", 0), getattr(found, "clock_rate", 0)
    if cache:
        facts["device_cache_bytes"] = float(cache)
    if clock_khz:
        facts["device_clock_hz"] = 1e3 * float(clock_khz)
    return facts


def memory_bytes() -> int:
    """The machine's memory, or a container's limit where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in _CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
            total = min(total, int(Path(limit).read_text(encoding="ascii")))
    return total
