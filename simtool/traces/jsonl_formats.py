"""JSON traces: Mooncake, simtool's own JSONL, and ShareGPT-style files that give lengths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.traces.columns import TraceColumns
from simtool.traces.numbers import finite_numbers, whole_numbers, without_output
from simtool.traces.source_file import json_items, json_lines, opened, where
from simtool.workload import Workload

MOONCAKE_KEYS = ("timestamp", "input_length", "output_length", "hash_ids")
MOONCAKE_BLOCK_TOKENS = 512  # FAST25-release/README.md of kvcache-ai/Mooncake
MOONCAKE_MS = 1e-3
# Mooncake's production traces have about 4 requests/s. A thousand a second means that seconds stand where ms belong.
MOONCAKE_MAX_RATE = 1000.0
MOONCAKE_MIN_ROWS = 100

OWN_KEYS = ("arrival_s", "input_tokens", "output_tokens")
OWN_OPTIONAL = ("priority", "prefix", "follows", "think_s")
OWN_HEADER = ("simtool_trace", "prefix_block_tokens", "max_concurrency", "warmup_requests", "source")
OWN_VERSION = 1

TURN_LENGTH = ("num_tokens", "tokens", "token_count", "length")
LENGTH_PAIRS = (
    ("input_tokens", "output_tokens"),
    ("input_len", "output_len"),
    ("prompt_len", "output_len"),
    ("prompt_tokens", "completion_tokens"),
)


def read_mooncake(path: Path) -> Workload:
    """Mooncake: whole milliseconds, lengths, and the ids of the prompt's 512-token blocks, which hash all before them.

    The last id of a prompt covers a part of a block and is not kept. Rows without output are dropped and counted.
    """
    trace = TraceColumns(f"{path.name}: mooncake", MOONCAKE_BLOCK_TOKENS)
    last_ms, rows = 0.0, 0
    for objects, lines in json_lines(path):
        _check_keys(objects, lines, path, MOONCAKE_KEYS[:3], MOONCAKE_KEYS)
        milliseconds = _whole_milliseconds([row["timestamp"] for row in objects], path, lines)
        outputs = whole_numbers([row["output_length"] for row in objects], "output_length", path, lines, least=0)
        keep = without_output(outputs)
        if keep is not None:
            trace.dropped += int(np.count_nonzero(~keep))
            milliseconds, outputs = milliseconds[keep], outputs[keep]
            objects = [row for row, kept in zip(objects, keep, strict=True) if kept]
            lines = [line for line, kept in zip(lines, keep, strict=True) if kept]
        inputs = whole_numbers([row["input_length"] for row in objects], "input_length", path, lines, least=1)
        prefix = _ragged([row.get("hash_ids", []) for row in objects], "hash_ids", path, lines)
        _check_blocks(prefix[1], inputs, path, lines)
        last_ms, rows = max(last_ms, float(milliseconds.max(initial=0))), rows + len(lines)
        columns = (milliseconds * MOONCAKE_MS, inputs.astype(np.int32), outputs.astype(np.int32))
        trace.extend(*columns, prefix=prefix)
    if rows >= MOONCAKE_MIN_ROWS and 0 < last_ms * MOONCAKE_MAX_RATE * MOONCAKE_MS < rows:
        rule = f"{rows} requests within {last_ms:g} ms: timestamps must be milliseconds"
        raise InputError(path, rule, 'they look like seconds; simtool\'s own JSONL has "arrival_s"')
    return trace.finish(shift_to_zero=True, whole_blocks_only=True)


def _whole_milliseconds(values: list[Any], path: Path, lines: list[int]) -> NDArray[np.float64]:
    """Timestamps; a fraction is the mark of seconds."""
    milliseconds = finite_numbers(values, "timestamp (ms)", path, lines, least=0.0)
    fractional = np.flatnonzero(milliseconds != np.rint(milliseconds))
    if len(fractional):
        row = int(fractional[0])
        rule = "Mooncake timestamps are whole milliseconds"
        hint = 'seconds belong in simtool\'s own JSONL, under "arrival_s"'
        raise InputError(f"{where(path, lines[row])}: timestamp = {values[row]}", rule, hint)
    return milliseconds


def _check_blocks(counts: NDArray[np.int64], inputs: NDArray[np.int64], path: Path, lines: list[int]) -> None:
    """A prompt has at most as many hash ids as it has (started) blocks."""
    bad = np.flatnonzero(counts > -(-inputs // MOONCAKE_BLOCK_TOKENS))
    if len(bad):
        row = int(bad[0])
        rule = f"an input of {inputs[row]} tokens has at most one id for each {MOONCAKE_BLOCK_TOKENS} tokens"
        raise InputError(f"{where(path, lines[row])}: {counts[row]} hash_ids", rule)


def _ragged(
    lists: list[Any], name: str, path: Path, lines: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(flat ids, ids per row) of lists of whole numbers of at least 0."""
    wrong = next((row for row, ids in enumerate(lists) if not isinstance(ids, list)), None)
    if wrong is not None:
        raise InputError(f"{where(path, lines[wrong])}: {name} = {lists[wrong]!r}", "must be a list of whole numbers")
    counts = np.array([len(ids) for ids in lists], np.int64)
    flat = [number for ids in lists for number in ids]
    try:
        column = np.array(flat, dtype=np.int64) if flat else np.empty(0, np.int64)
        if column.shape == (len(flat),) and (not flat or (column.min() >= 0 and np.array(flat).dtype.kind in "iu")):
            return column, counts
    except (TypeError, ValueError, OverflowError):
        pass
    for row, ids in enumerate(lists):
        if not all(type(number) is int and 0 <= number < 2**63 for number in ids):
            rule = "must be a list of whole numbers from 0 to 2^63 - 1"
            raise InputError(f"{where(path, lines[row])}: {name}", rule)
    raise InputError(path, f"{name} must be lists of whole numbers")


def _check_keys(
    objects: list[dict[str, Any]], lines: list[int], path: Path, needed: Sequence[str], known: Sequence[str]
) -> None:
    """Every object has the needed keys and no unknown one."""
    required, allowed = frozenset(needed), frozenset(known)
    for row, line in zip(objects, lines, strict=True):
        keys = row.keys()
        if keys == allowed or (required <= keys and keys <= allowed):
            continue
        missing, unknown = sorted(required - keys), sorted(keys - allowed)
        if unknown:
            hint = f"the keys are {', '.join(known)}; times carry the unit that the key states"
            raise InputError(f"{where(path, line)}: key {unknown[0]!r}", "unknown key", hint)
        raise InputError(where(path, line), f"key {missing[0]!r} is missing")


def read_own(path: Path) -> Workload:
    """simtool's own JSONL (docs/traces.md gives the schema): an optional header line, then one request a line."""
    header = _own_header(path)
    block = int(whole_numbers([header.get("prefix_block_tokens", 16)], "prefix_block_tokens", path, [1], least=1)[0])
    trace = TraceColumns(str(header.get("source") or f"{path.name}: jsonl"), block)
    for key in ("max_concurrency", "warmup_requests"):
        setattr(trace, key, int(whole_numbers([header.get(key, 0)], key, path, [1], least=0)[0]))
    for objects, lines in json_lines(path):
        if lines[0] == 1 and header:
            objects, lines = objects[1:], lines[1:]
        _check_keys(objects, lines, path, OWN_KEYS, (*OWN_KEYS, *OWN_OPTIONAL))
        if objects:
            _extend_own(trace, objects, path, lines)
    return trace.finish(shift_to_zero=False)


def _own_header(path: Path) -> dict[str, Any]:
    """The header object if the first line is one, else {}."""
    with opened(path) as text:
        first = text.readline()
    if '"simtool_trace"' not in first:
        return {}
    header = next(json_lines(path))[0][0]
    unknown = sorted(header.keys() - set(OWN_HEADER))
    if unknown:
        raise InputError(
            f"{where(path, 1)}: key {unknown[0]!r}", "unknown key", f"the keys are {', '.join(OWN_HEADER)}"
        )
    if header.get("simtool_trace") != OWN_VERSION:
        raise InputError(f"{where(path, 1)}: simtool_trace = {header.get('simtool_trace')}", f"must be {OWN_VERSION}")
    return header


def _extend_own(trace: TraceColumns, objects: list[dict[str, Any]], path: Path, lines: list[int]) -> None:
    """Add a chunk of own rows."""

    def whole(key: str, default: int, least: int) -> NDArray[np.int32]:
        values = [row.get(key, default) for row in objects]
        return whole_numbers(values, key, path, lines, least=least).astype(np.int32)

    def has(key: str) -> bool:
        return any(key in row for row in objects)

    arrival_s = finite_numbers([row["arrival_s"] for row in objects], "arrival_s", path, lines, least=0.0)
    think_s = finite_numbers([row.get("think_s", 0.0) for row in objects], "think_s", path, lines, least=0.0)
    trace.extend(
        arrival_s,
        whole("input_tokens", 0, 1),
        whole("output_tokens", 0, 1),
        priority=whole("priority", 0, -(2**31)) if has("priority") else None,
        prefix=_ragged([row.get("prefix", []) for row in objects], "prefix", path, lines) if has("prefix") else None,
        follows=(whole("follows", -1, -1), think_s) if has("follows") or has("think_s") else None,
    )


def read_sharegpt(path: Path) -> Workload:
    """A JSON list (or JSONL) of conversations that give token counts, no arrivals: all requests arrive at 0.

    Either the item has a pair of lengths (input_tokens and output_tokens, ...), or its first two turns have a count
    each (num_tokens, ...): the prompt and the answer, as vLLM's benchmark takes them from ShareGPT.
    """
    with opened(path) as text:
        is_list = text.read(1 << 12).lstrip().startswith("[")
    chunks = (([item], [number]) for number, item in enumerate(json_items(path))) if is_list else json_lines(path)
    trace = TraceColumns(f"{path.name}: sharegpt")
    trace.notes.append("no arrivals in the file: all at 0")
    for objects, numbers in chunks:
        pairs = [_lengths(item, path, number) for item, number in zip(objects, numbers, strict=True)]
        inputs = whole_numbers([pair[0] for pair in pairs], "input tokens", path, numbers, least=1)
        outputs = whole_numbers([pair[1] for pair in pairs], "output tokens", path, numbers, least=1)
        trace.extend(np.zeros(len(pairs)), inputs.astype(np.int32), outputs.astype(np.int32))
    return trace.finish(shift_to_zero=False)


def _lengths(item: dict[str, Any], path: Path, number: int) -> tuple[Any, Any]:
    """(input, output) tokens of one conversation."""
    for input_key, output_key in LENGTH_PAIRS:
        if input_key in item and output_key in item:
            return item[input_key], item[output_key]
    turns = item.get("conversations", item.get("conversation"))
    if isinstance(turns, list) and len(turns) >= 2 and all(isinstance(turn, dict) for turn in turns[:2]):
        for key in TURN_LENGTH:
            if key in turns[0] and key in turns[1]:
                return turns[0][key], turns[1][key]
    hint = "count them with your tokenizer and give CSV columns input_tokens,output_tokens"
    raise InputError(where(path, number), "the conversation gives no token counts, and simtool has no tokenizer", hint)
