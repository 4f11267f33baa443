"""Host overhead: what the engine around the kernels adds to a step, by kernel library (hardware/data/host.toml)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from simtool.errors import InputError
from simtool.hardware.device import read_catalogue
from simtool.hardware.kernel_profile import KernelProfile
from simtool.hardware.own_profiles import with_file

# A profile's host time -> the overhead that it replaces, and its name in a source.
_MEASURED = {
    "step_base": ("base_s", "step"),
    "step_per_request": ("per_request_s", "request of a step"),
    "gap": ("gap_s", "gap"),
    "request_latency": ("request_latency_s", "request"),
    "eager_launch": ("eager_launch_s", "launch"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HostOverhead:
    """Seconds a step takes beside its kernels, and a request beside its steps.

    base_s: a step (schedule, prepare inputs, replay graphs, read sampled tokens back). per_request_s: each request of
    it (block table, sampling parameters, output). eager_launch_s: one kernel launch without a CUDA graph. gap_s: the
    device idles so long between steps even where asynchronous scheduling hides base_s and per_request_s.
    request_latency_s: what a request waits outside the engine, in and out together (HTTP, tokenise, detokenise).
    """

    base_s: float
    per_request_s: float
    eager_launch_s: float
    gap_s: float
    source: str
    request_latency_s: float = 0.0


def load_host(library: str, own: Sequence[KernelProfile] = ()) -> HostOverhead:
    """The overhead of a kernel library's engine. Raises InputError for an unknown library or a broken file.

    own: the user's profiles of the cluster's devices. Those of this library say what a kernel launch takes, and what an
    engine's step and request do where that was fitted (`kernel_profile.ENGINE_TIMES`).
    """
    from pydantic import BaseModel, ConfigDict, Field, ValidationError

    class Entry(BaseModel):
        model_config = ConfigDict(extra="forbid")
        base_us: float = Field(ge=0)
        per_request_us: float = Field(ge=0)
        eager_launch_us: float = Field(ge=0)
        gap_us: float = Field(ge=0)
        request_latency_us: float = Field(ge=0)
        source: str = Field(min_length=1)

    table: dict[str, Any] = read_catalogue("host.toml")
    if library not in table:
        raise InputError(library, "no host overhead is known for this kernel library", f"one of {', '.join(table)}")
    try:
        entry = Entry.model_validate(table[library])
    except ValidationError as error:
        raise InputError(f"host.toml [{library}]", str(error)) from None
    host = HostOverhead(
        base_s=entry.base_us * 1e-6,
        per_request_s=entry.per_request_us * 1e-6,
        eager_launch_s=entry.eager_launch_us * 1e-6,
        gap_s=entry.gap_us * 1e-6,
        source=entry.source,
        request_latency_s=entry.request_latency_us * 1e-6,
    )
    return _with_measured(host, [profile for profile in own if profile.library == library])


def _with_measured(host: HostOverhead, profiles: Sequence[KernelProfile]) -> HostOverhead:
    """`host` with the times that the profiles hold in place of the catalogue's; of each the first one's.

    On a CPU the device is the host: kernels were timed with their dispatch and nothing idles beside it, so that
    neither a launch nor a gap is added to them.
    """
    seconds, told = {}, []
    for name, (field, words) in _MEASURED.items():
        for profile in profiles:
            on_cpu = profile.measured_device is not None and profile.measured_device.kind == "cpu"
            found = next((time for time in profile.host if time.name == name), None)
            if on_cpu and name == "eager_launch":
                seconds[field], source = 0.0, f"in the kernels' own times on {profile.device}"
            elif found is not None:
                seconds[field], source = found.seconds, f"{profile.device}/{profile.library}/{name}"
                source += f" ({found.source})" if found.source else ""
            elif on_cpu and name == "gap":
                seconds[field], source = 0.0, f"none on {profile.device}"
            else:
                continue
            told.append(with_file(f"{words}: {source}", profile.file))
            break
    return replace(host, **seconds, source="; ".join([host.source, *told]))
