"""Engine times: what an engine's host adds to a step and to a request, written into the profile of its kernels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simtool.calibration.fit_profile import host_entry, write_profile
from simtool.errors import InputError
from simtool.hardware.kernel_profile import ENGINE_TIMES, HostTime
from simtool.hardware.profile_file import parse_profile, profile_text


def with_host_times(profile: Path, times: Sequence[HostTime], out: Path) -> Path:
    """Write the profile at `profile` to `out` (.json or .json.gz) with `times` in place of its own of those names.

    times: of ENGINE_TIMES, each with the source that says which run it was fitted to. All else stays as it is, but for
    the checksum. Returns `out`; raises InputError for a file that is no profile and for a time without a source.
    """
    for time in times:
        if time.name not in ENGINE_TIMES:
            raise InputError(time.name, "is no time of an engine's host", "one of " + ", ".join(ENGINE_TIMES))
        if not time.source:
            raise InputError(time.name, "says not what it was fitted to", "give the time a source")
    table = _table(profile)
    replaced = {time.name for time in times}
    rows = [row for row in table.get("host", []) if row["name"] not in replaced]
    table["host"] = [*rows, *map(host_entry, times)]
    write_profile(table, out)
    return out


def _table(path: Path) -> dict[str, Any]:
    """The profile's JSON object, checked to be one, without its checksum."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}", "a profile, .json or .json.gz") from None
    parse_profile(data, str(path))
    table: dict[str, Any] = json.loads(profile_text(data, str(path)))
    del table["checksum"]
    return table
