"""CSV traces: Azure's LLM traces, BurstGPT, and plain columns of lengths (with or without arrivals)."""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.traces.columns import TraceColumns
from simtool.traces.numbers import finite_numbers, whole_numbers, without_output
from simtool.traces.source_file import ROWS_PER_CHUNK, opened, where
from simtool.workload import Workload

AZURE_HEADER = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
BURSTGPT_HEADER = ("Timestamp", "Model", "Request tokens", "Response tokens", "Total tokens", "Log Type")
BURSTGPT_EXTRA = ("Session ID", "Elapsed time")  # later releases of BurstGPT have them

INPUT_NAMES = ("input_tokens", "input_len", "input_toks", "prompt_len", "ContextTokens", "num_prefill_tokens")
OUTPUT_NAMES = ("output_tokens", "output_len", "output_toks", "GeneratedTokens", "num_decode_tokens")
ARRIVAL_SECONDS = {
    "arrival_s": 1.0,
    "arrival_ms": 1e-3,
    "arrival_us": 1e-6,
    "arrival_ns": 1e-9,
    "arrival_time_ns": 1e-9,
    "StartTimeOffset_ns": 1e-9,
}
IGNORED_NAMES = ("request_id", "RequestID", "num_total_tokens", "pd_ratio")
UTC_SUFFIX = ("Z", "+00:00")

Rows = tuple[dict[str, tuple[str, ...]], Sequence[int]]


def header_of(text: str) -> tuple[str, ...]:
    """The column names of CSV text (its first line)."""
    first = next(csv.reader([text.splitlines()[0]]), []) if text.strip() else []
    return tuple(name.strip() for name in first)


def csv_chunks(path: Path) -> Iterator[Rows]:
    """Chunks of (column name -> values, line numbers); every row must have the header's number of fields."""
    with opened(path) as text:
        reader = csv.reader(text)
        try:
            header = [name.strip() for name in next(reader, [])]
            first = reader.line_num + 1
            while rows := list(islice(reader, ROWS_PER_CHUNK)):
                lines: Sequence[int] = range(first, first + len(rows))
                first += len(rows)
                if set(map(len, rows)) != {len(header)}:
                    rows, lines = _full_rows(rows, lines, header, path)
                if rows:
                    yield dict(zip(header, zip(*rows, strict=True), strict=True)), lines
        except csv.Error as error:
            raise InputError(where(path, reader.line_num), f"not CSV: {error}") from error


def _full_rows(
    rows: list[list[str]], lines: Sequence[int], header: Sequence[str], path: Path
) -> tuple[list[list[str]], Sequence[int]]:
    """The rows that are not blank, with their lines; a row of another number of fields is an error."""
    kept = [(row, line) for row, line in zip(rows, lines, strict=True) if row]
    for row, line in kept:
        if len(row) != len(header):
            rule = f"must have {len(header)} fields ({', '.join(header)})"
            raise InputError(f"{where(path, line)}: {','.join(row)}", rule, "the file may be truncated")
    return [row for row, _ in kept], [line for _, line in kept]


def check_header(path: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> tuple[str, ...]:
    """The header, if it has every needed column once and no unknown one."""
    with opened(path) as text:
        header = header_of(text.readline())
    missing = [name for name in needed if name not in header]
    unknown = [name for name in header if name not in needed and name not in optional]
    known = ", ".join((*needed, *optional))
    if missing:
        near = f" (found {', '.join(unknown)})" if unknown else ""
        raise InputError(
            f"{where(path, 1)}: column {missing[0]!r} is missing{near}", f"needs columns {known}", UNIT_HINT
        )
    if unknown:
        raise InputError(f"{where(path, 1)}: column {unknown[0]!r}", f"unknown; the columns are {known}", UNIT_HINT)
    if len(set(header)) != len(header):
        raise InputError(f"{where(path, 1)}: {', '.join(header)}", "a column appears twice")
    return header


UNIT_HINT = "a column of another unit needs its own name: arrival_s, arrival_ms, arrival_us or arrival_ns"


def read_azure(path: Path) -> Workload:
    """Azure LLM inference traces of 2023 (local times) and 2024 (with a time zone)."""
    check_header(path, AZURE_HEADER)
    trace = TraceColumns(f"{path.name}: azure")
    origin: np.datetime64 | None = None
    for columns, lines in csv_chunks(path):
        moments = timestamps(columns["TIMESTAMP"], path, lines)
        origin = moments[0] if origin is None else origin
        # Difference in whole nanoseconds first: a float of an absolute time has lost the microseconds.
        arrival_s = (moments - origin).astype(np.int64).astype(np.float64) * 1e-9
        _extend(trace, arrival_s, columns["ContextTokens"], columns["GeneratedTokens"], path, lines)
    return trace.finish(shift_to_zero=True)


def read_burstgpt(path: Path) -> Workload:
    """BurstGPT: seconds, request and response tokens; responses of 0 tokens are its failed requests (dropped)."""
    check_header(path, BURSTGPT_HEADER, BURSTGPT_EXTRA)
    trace = TraceColumns(f"{path.name}: burstgpt")
    for columns, lines in csv_chunks(path):
        arrival_s = finite_numbers(columns["Timestamp"], "Timestamp (s)", path, lines, least=0.0)
        _extend(trace, arrival_s, columns["Request tokens"], columns["Response tokens"], path, lines)
    return trace.finish(shift_to_zero=True)


def read_lengths(path: Path) -> Workload:
    """Columns input_tokens, output_tokens, and if given an arrival (unit in its name) and a priority.

    Without arrivals every request arrives at 0 and `source` says so.
    """
    names = _length_columns(path)
    trace = TraceColumns(f"{path.name}: lengths")
    if names["arrival"] is None:
        trace.notes.append("no arrivals in the file: all at 0")
    for columns, lines in csv_chunks(path):
        arrival_s = np.zeros(len(lines))
        if names["arrival"]:
            arrival_s = finite_numbers(columns[names["arrival"]], names["arrival"], path, lines, least=0.0)
            arrival_s = arrival_s * ARRIVAL_SECONDS[names["arrival"]]
        priority = None
        if "priority" in columns:
            least = -(2**31)
            priority = whole_numbers(columns["priority"], "priority", path, lines, least=least).astype(np.int32)
        inputs = whole_numbers(columns[names["input"] or ""], "input_tokens", path, lines, least=1).astype(np.int32)
        outputs = whole_numbers(columns[names["output"] or ""], "output_tokens", path, lines, least=1).astype(np.int32)
        trace.extend(arrival_s, inputs, outputs, priority=priority)
    return trace.finish(shift_to_zero=False)


def _length_columns(path: Path) -> dict[str, str | None]:
    """Which column is which, by any of its known names."""
    with opened(path) as text:
        header = header_of(text.readline())

    def pick(names: Sequence[str]) -> str | None:
        return next((name for name in header if name in names), None)

    found = {"input": pick(INPUT_NAMES), "output": pick(OUTPUT_NAMES), "arrival": pick(tuple(ARRIVAL_SECONDS))}
    needed = (found["input"] or "input_tokens", found["output"] or "output_tokens")
    arrival = (found["arrival"],) if found["arrival"] else ("arrival_s",)
    check_header(path, needed, (*arrival, "priority", *IGNORED_NAMES))
    return found


def _extend(
    trace: TraceColumns,
    arrival_s: NDArray[np.float64],
    inputs: Sequence[str],
    outputs: Sequence[str],
    path: Path,
    lines: Sequence[int],
) -> None:
    """Add a chunk of a public trace: rows without output are requests that failed; they are dropped and counted."""
    input_tokens = whole_numbers(inputs, "input tokens", path, lines, least=0)
    output_tokens = whole_numbers(outputs, "output tokens", path, lines, least=0)
    keep = without_output(output_tokens)
    if keep is not None:
        trace.dropped += int(np.count_nonzero(~keep))
        arrival_s, input_tokens, output_tokens = arrival_s[keep], input_tokens[keep], output_tokens[keep]
        lines = [line for line, kept in zip(lines, keep, strict=True) if kept]
    empty = np.flatnonzero(input_tokens == 0)
    if len(empty):
        raise InputError(f"{where(path, lines[int(empty[0])])}: input tokens = 0", "a prompt has at least one token")
    trace.extend(arrival_s, input_tokens.astype(np.int32), output_tokens.astype(np.int32))


def timestamps(texts: Sequence[str], path: Path, lines: Sequence[int]) -> NDArray[np.datetime64]:
    """ISO date-times (UTC when no zone is given) as datetime64[ns]."""
    suffix = next((suffix for suffix in UTC_SUFFIX if texts[0].endswith(suffix)), "")
    if suffix:
        texts = [text.removesuffix(suffix) for text in texts]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # numpy warns of a zone it ignores
            moments = np.array(texts, dtype="datetime64[ns]")
        if not np.isnat(moments).any() and min(map(len, texts)) >= len("2023-11-16 18:15:46"):
            return moments
    except (ValueError, UserWarning, DeprecationWarning):
        pass  # the slow path below reads zones, and names the bad row
    return np.array([_moment(text, path, line) for text, line in zip(texts, lines, strict=True)])


def _moment(text: str, path: Path, line: int) -> np.datetime64:
    """One date-time of any ISO form (slow path). Digits beyond nanoseconds are not kept."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?\s*(Z|[+-]\d\d:?\d\d)?", text.strip())
    if not match:
        rule = "must be a date and time such as 2023-11-16 18:15:46.680590"
        raise InputError(f"{where(path, line)}: TIMESTAMP = {text!r}", rule, UNIT_HINT)
    try:
        moment = datetime.fromisoformat(match[1] + (match[3] or "+00:00").replace("Z", "+00:00"))
    except ValueError as error:
        raise InputError(f"{where(path, line)}: TIMESTAMP = {text!r}", str(error)) from error
    seconds = np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "ns")
    return seconds + np.timedelta64(int((match[2] or "0").ljust(9, "0")), "ns")
