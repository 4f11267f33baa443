"""JSON that any reader takes: numpy's numbers as plain ones, and null for what is not a number."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any


def json_text(value: object, *, indent: int | None = 2) -> str:
    """`value` as strict JSON text (RFC 8259 has no NaN and no infinity: both become null)."""
    return json.dumps(plain(value), indent=indent, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """`value` with dataclasses as objects, numpy scalars and arrays as numbers and lists, NaN and infinity as None."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
