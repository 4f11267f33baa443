"""Rows and header of a points journal <-> one line of JSON each; what is read is checked by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from simtool.calibration.measured_set import Contention, HostTime
from simtool.calibration.points import (
    COLLECTIVE_KINDS,
    COPY_KINDS,
    MAY_BE_ZERO,
    OPTIONAL_DIMS,
    POINT_DIMS,
    JournalHeader,
    JournalRow,
    KernelPoint,
    Row,
    Sentinel,
    Skipped,
    TimedCollective,
    TimedCopy,
    TimedPoint,
    Timing,
)
from simtool.hardware.fitted_work import STORED_BYTES

SCHEMA = 1
LONGEST_TEXT = 2_000
HUGE = 1e300  # also keeps out NaN, infinity and integers that no float holds
MOST_ENTRIES = 200
_TIMED = {"seconds", "spread", "repeats"}
_KEYS: Mapping[str, set[str]] = {
    "point": {"family", "dtype", "kernel", "dims", *_TIMED},
    "copy": {"name", "size_bytes", *_TIMED},
    "collective": {"name", "library", "ranks", "size_bytes", *_TIMED},
    "contention": {
        "first",
        "second",
        "first_alone_s",
        "second_alone_s",
        "first_together_s",
        "second_together_s",
    },
    "host": {"name", "seconds", "spread"},
    "sentinel": {"seconds"},
    "skipped": {"subject", "reason"},
}
_HEADER_KEYS = {"schema", "kind", "device", "library", "version", "seed", "request", "machine"}


class BadLineError(ValueError):
    """A line that breaks a rule; the reader of the file says which line."""


def header_text(header: JournalHeader) -> str:
    """The header as a line without its end."""
    fields: dict[str, Any] = {
        "device": header.device,
        "library": header.library,
        "version": header.version,
        "seed": header.seed,
    }
    more = {"request": dict(header.request), "machine": dict(header.machine)}
    return json.dumps({"schema": SCHEMA, "kind": "simtool points"} | fields | more, allow_nan=False)


def row_text(written: JournalRow) -> str:
    """A row as a line without its end."""
    kind, fields = _fields(written.row)
    return json.dumps({"kind": kind, **fields, "at_s": round(written.at_s, 4)}, allow_nan=False)


def read_header(line: str) -> JournalHeader:
    """The header of a line. BadLineError where it is none."""
    fields = _object(line)
    _same_keys(fields, _HEADER_KEYS)
    if fields["schema"] != SCHEMA or fields["kind"] != "simtool points":
        raise BadLineError(f"is no header of schema {SCHEMA}")
    request, machine = _mapping(fields["request"]), _mapping(fields["machine"])
    if not all(isinstance(value, str) for value in request.values()):
        raise BadLineError("request holds a value that is no text")
    facts = {name: value if isinstance(value, str) else _number(value, name) for name, value in machine.items()}
    return JournalHeader(
        device=_text(fields["device"], "device"),
        library=_text(fields["library"], "library"),
        version=_text(fields["version"], "version"),
        seed=_whole(fields["seed"], "seed"),
        request={name: str(value) for name, value in request.items()},
        machine=facts,
    )


def read_row(line: str) -> JournalRow:
    """The row of a line. BadLineError where it is none."""
    fields = _object(line)
    kind = fields.get("kind")
    if not isinstance(kind, str) or kind not in _KEYS:
        raise BadLineError(f"kind is none of {', '.join(_KEYS)}")
    _same_keys(fields, {"kind", "at_s", *_KEYS[kind]})
    return JournalRow(at_s=_number(fields["at_s"], "at_s", zero=True), row=_row(kind, fields))


def _fields(row: Row) -> tuple[str, dict[str, Any]]:
    match row:
        case TimedPoint(point=p):
            named = {"family": p.family, "dtype": p.dtype, "kernel": p.kernel, "dims": dict(p.dims)}
            return "point", named | _timing_fields(row.timing)
        case TimedCopy():
            return "copy", {"name": row.name, "size_bytes": row.size_bytes, **_timing_fields(row.timing)}
        case TimedCollective():
            group = {"name": row.name, "library": row.library, "ranks": row.ranks, "size_bytes": row.size_bytes}
            return "collective", {**group, **_timing_fields(row.timing)}
        case Contention():
            return "contention", {name: getattr(row, name) for name in sorted(_KEYS["contention"])}
        case HostTime():
            return "host", {"name": row.name, "seconds": row.seconds, "spread": row.spread}
        case Sentinel():
            return "sentinel", {"seconds": row.seconds}
        case Skipped():
            return "skipped", {"subject": row.subject[:LONGEST_TEXT], "reason": row.reason[:LONGEST_TEXT]}


def _timing_fields(timing: Timing) -> dict[str, float]:
    return {"seconds": timing.seconds, "spread": round(timing.spread, 5), "repeats": timing.repeats}


def _row(kind: str, fields: dict[str, Any]) -> Row:
    match kind:
        case "point":
            return TimedPoint(point=_point(fields), timing=_timing(fields))
        case "copy":
            name, size = _one_of(fields["name"], "name", COPY_KINDS), _number(fields["size_bytes"], "size_bytes")
            return TimedCopy(name=name, size_bytes=size, timing=_timing(fields))
        case "collective":
            return TimedCollective(
                name=_one_of(fields["name"], "name", COLLECTIVE_KINDS),
                library=_text(fields["library"], "library"),
                ranks=_whole(fields["ranks"], "ranks", least=2),
                size_bytes=_number(fields["size_bytes"], "size_bytes"),
                timing=_timing(fields),
            )
        case "contention":
            numbers = {name: _number(fields[name], name) for name in _KEYS[kind] if name.endswith("_s")}
            return Contention(
                first=_text(fields["first"], "first"), second=_text(fields["second"], "second"), **numbers
            )
        case "host":
            seconds, spread = (_number(fields[name], name, zero=True) for name in ("seconds", "spread"))
            return HostTime(name=_text(fields["name"], "name"), seconds=seconds, spread=spread)
        case "sentinel":
            return Sentinel(seconds=_number(fields["seconds"], "seconds"))
        case _:
            return Skipped(subject=_text(fields["subject"], "subject"), reason=_text(fields["reason"], "reason"))


def _point(fields: dict[str, Any]) -> KernelPoint:
    family = _one_of(fields["family"], "family", tuple(POINT_DIMS))
    dims = _mapping(fields["dims"])
    optional = set(OPTIONAL_DIMS.get(family, ()))
    _same_keys({name: 0 for name in dims if name not in optional}, set(POINT_DIMS[family]))
    numbers = {name: _number(value, name, zero=name in MAY_BE_ZERO) for name, value in dims.items()}
    if numbers.get("kv_max", numbers.get("kv_len", 0.0)) < numbers.get("kv_len", 0.0):
        raise BadLineError("kv_max is below the mean kv_len")
    dtype, kernel = _text(fields["dtype"], "dtype"), _text(fields["kernel"], "kernel")
    if dtype not in STORED_BYTES:
        raise BadLineError(f"has the dtype {dtype!r}, which is none of {', '.join(STORED_BYTES)}")
    return KernelPoint(family=family, dtype=dtype, kernel=kernel, dims=numbers)


def _timing(fields: dict[str, Any]) -> Timing:
    return Timing(
        seconds=_number(fields["seconds"], "seconds"),
        spread=_number(fields["spread"], "spread", zero=True),
        repeats=_whole(fields["repeats"], "repeats", least=1),
    )


def _object(line: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise BadLineError("holds a key twice")
        return fields

    try:
        fields = json.loads(line, object_pairs_hook=unique)
    except BadLineError:
        raise
    except (ValueError, RecursionError) as error:
        raise BadLineError(f"is no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise BadLineError("is no JSON object")
    return fields


def _same_keys(fields: Mapping[str, Any], wanted: set[str]) -> None:
    missing, unknown = sorted(wanted - set(fields)), sorted(set(fields) - wanted)
    if missing or unknown:
        parts = [f"lacks {', '.join(missing)}" if missing else "", f"has unknown {', '.join(unknown)}"[:200]]
        raise BadLineError(" and ".join(part for part, there in zip(parts, (missing, unknown), strict=True) if there))


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or len(value) > MOST_ENTRIES:
        raise BadLineError(f"holds something else than an object of up to {MOST_ENTRIES} entries")
    return value


def _number(value: Any, name: str, *, zero: bool = False) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -HUGE < value < HUGE:
        raise BadLineError(f"{name} is no finite number")
    if value < 0 or (value == 0 and not zero):
        raise BadLineError(f"{name} {value!r} is {'negative' if zero else 'not positive'}"[:200])
    return float(value)


def _whole(value: Any, name: str, *, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
        raise BadLineError(f"{name} is no whole number from {least}")
    return value


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_TEXT:
        raise BadLineError(f"{name} is no text of 1 to {LONGEST_TEXT} characters")
    return value


def _one_of(value: Any, name: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise BadLineError(f"{name} {value!r} is none of {', '.join(known)}"[:400])
    return str(value)
