"""Machine: facts of the machine and of torch, for the journal's header. No host name, no user, no path."""

from __future__ import annotations

import contextlib
import datetime
import platform
import re
import shutil
import subprocess
from pathlib import Path

import torch

from simtool.calibration.profiling.self_description import device_facts
from simtool.hardware.device import device_aliases, device_names

_MEMORY_WORD = re.compile(r"\d+gb|hbm\d?e?")
_MAKERS = ("nvidia", "amd", "tesla", "geforce")
_QUERY = "driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit"


def machine_facts(device: str) -> dict[str, str | float]:
    """Date, versions, what the driver says of the device, and what the device is."""
    facts: dict[str, str | float] = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "threads": float(torch.get_num_threads()),
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        facts |= {
            "cuda": str(torch.version.cuda),
            "gpu": str(properties.name),
            "gpus": float(torch.cuda.device_count()),
        }
        facts |= {"gpu_bytes": float(properties.total_memory), "sm_count": float(properties.multi_processor_count)}
        facts |= _driver_facts()
    label = cpu_name() if device == "cpu" else str(torch.cuda.get_device_name(0))
    return facts | device_facts(device, label)


def device_name(device: str) -> str:
    """The catalogue name of the device, or a name made of what it calls itself."""
    if device == "cuda":
        return gpu_device_name(torch.cuda.get_device_name(0))
    return f"cpu-{_slug(cpu_name())}-{torch.get_num_threads()}t"


def gpu_device_name(name: str) -> str:
    """The catalogue name for a driver's name as "NVIDIA H100 80GB HBM3"; the same in small letters if unknown."""
    words = _slug(name).split("-")
    while words[0] in _MAKERS and len(words) > 1:
        words = words[1:]
    aliases, known = device_aliases(), device_names()
    shorter = [word for word in words if not _MEMORY_WORD.fullmatch(word)]
    for candidate in ("-".join(words), "-".join(words).replace("gb", "g"), "-".join(shorter)):
        found = aliases.get(candidate, candidate)
        if found in known:
            return found
    return "-".join(words)


def cpu_name() -> str:
    """The CPU's own name; its architecture where the system does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()[:100]
    return platform.processor() or platform.machine()


def _slug(text: str) -> str:
    plain = text.lower().replace("(r)", "").replace("(tm)", "")
    return re.sub(r"[^a-z0-9.]+", "-", plain).strip("-") or "unknown"


def _driver_facts() -> dict[str, str | float]:
    """Driver version, clocks and power limit of the first GPU from nvidia-smi; nothing where it is not there."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return {}
    command = [tool, "--id=0", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    names = ("driver", "sm_mhz", "memory_mhz", "most_sm_mhz", "power_limit_w")
    values = [value.strip() for value in done.stdout.splitlines()[0].split(",")] if done.stdout.strip() else []
    return {name: value for name, value in zip(names, values, strict=False) if value and not value.startswith("[")}
