"""Service-level objectives as people write them: `ttft:1000,tpot:50`."""

from __future__ import annotations

import math
import re

from simtool.errors import InputError

KEYS = ("ttft", "tpot", "e2el")
SECONDS = {"": 1e-3, "ms": 1e-3, "s": 1.0}
EXAMPLE = "write for example ttft:1000,tpot:50 in ms, or ttft:1s,tpot:50ms"


def parse_limits(text: str, attainment: float) -> dict[str, float]:
    """Seconds by key (0 where none is given) of limits separated by commas or spaces. Raises InputError."""
    if not 0 < attainment <= 1:
        raise InputError(f"attainment = {attainment}", "must be above 0 and at most 1", "0.99 is 99% of the requests")
    limits = dict.fromkeys(KEYS, 0.0)
    parts = [part for part in re.split(r"[,\s]+", text.strip()) if part]
    if not parts:
        raise InputError(repr(text), "no limit given", EXAMPLE)
    for part in parts:
        key, colon, value = part.partition(":")
        key = key.lower()
        if not colon or key not in KEYS:
            raise InputError(part, f"unknown limit; known are {', '.join(KEYS)}", EXAMPLE)
        if limits[key]:
            raise InputError(part, f"{key} is given twice")
        limits[key] = _seconds(part, value)
    return limits


def _seconds(part: str, value: str) -> float:
    """One value in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?(?:e[+-]?\d+)?|\.\d+)([a-z]*)", value.strip().lower())
    if not match or match[2] not in SECONDS:
        raise InputError(part, "must be a time in ms, or with the unit ms or s", EXAMPLE)
    number = float(match[1])
    if not 0 < number < math.inf:
        raise InputError(part, "must be above 0 and finite", "leave the limit out when there is none")
    if not match[2] and number < 1:
        raise InputError(
            part, "limits are in milliseconds, and this is below one", f"write {part}s if seconds are meant"
        )
    return number * SECONDS[match[2]]
