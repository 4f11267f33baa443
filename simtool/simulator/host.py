"""Host overhead: what the engine around the kernels adds to a step, by kernel library (hardware/data/host.toml)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from simtool.errors import InputError
from simtool.hardware.device import read_catalogue
from simtool.hardware.kernel_profile import KernelProfile
from simtool.hardware.own_profiles import with_file


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

    own: the user's profiles; the first of this library that measured a kernel launch says what one takes.
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
    for profile in own:
        for time in profile.host:
            if (profile.library, time.name) == (library, "eager_launch"):
                source = with_file(f"{host.source}; launch: {profile.device}/{library}/eager_launch", profile.file)
                return replace(host, eager_launch_s=time.seconds, source=source)
    return host
