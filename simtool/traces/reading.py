"""read_trace: any known trace file as a Workload; write_trace: a Workload as simtool's own JSONL."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Literal, TextIO, cast

from simtool.errors import InputError
from simtool.files import output_file
from simtool.traces.csv_formats import AZURE_HEADER, BURSTGPT_HEADER, header_of, read_azure, read_burstgpt, read_lengths
from simtool.traces.jsonl_formats import OWN_VERSION, read_mooncake, read_own, read_sharegpt
from simtool.traces.source_file import head
from simtool.traces.vllm_result import read_vllm_result
from simtool.workload import Workload

TraceFormat = Literal["auto", "azure", "burstgpt", "mooncake", "jsonl", "lengths", "sharegpt", "vllm"]

READERS = {
    "azure": read_azure,
    "burstgpt": read_burstgpt,
    "mooncake": read_mooncake,
    "jsonl": read_own,
    "lengths": read_lengths,
    "sharegpt": read_sharegpt,
    "vllm": read_vllm_result,
}


def read_trace(path: str | Path, format: str = "auto") -> Workload:
    """The requests of a trace file (plain or gzip), sorted by arrival; format 'auto' looks at the content.

    Formats: azure, burstgpt, mooncake, jsonl (own), lengths (CSV), sharegpt, vllm (benchmark result). Raises
    InputError with the line, the rule and a hint for anything that is not a sound trace.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(path, "is a folder", "give a trace file")
    if format != "auto" and format not in READERS:
        raise InputError(format, "unknown trace format", f"known: auto, {', '.join(READERS)}")
    return READERS[sniff(path) if format == "auto" else format](path)


def sniff(path: Path) -> str:
    """The format of the file's content. Raises InputError when it is none of them."""
    text = head(path)
    if not text:
        raise InputError(path, "the file is empty", "give a trace with at least one request")
    if text.startswith("["):
        return "sharegpt"
    if text.startswith("{"):
        return _json_format(text, path)
    header = header_of(text)
    if "TIMESTAMP" in header and set(AZURE_HEADER[1:]) & set(header):
        return "azure"
    if "Timestamp" in header and set(BURSTGPT_HEADER[2:4]) & set(header):
        return "burstgpt"
    if len(header) >= 2 and any(_is_number(field) for field in header):
        raise InputError(f"{path.name} line 1: {text.splitlines()[0][:60]}", "the CSV has no header", LENGTHS_HINT)
    if len(header) >= 2:
        return "lengths"
    raise InputError(path, "is none of the known trace formats", f"name one with --trace-format: {', '.join(READERS)}")


LENGTHS_HINT = "name the columns, such as arrival_s,input_tokens,output_tokens"


def _is_number(text: str) -> bool:
    """Whether a header field is a number, so no header at all."""
    return text.replace(".", "", 1).isdigit()


def _json_format(text: str, path: Path) -> str:
    """Which JSON format: by the keys of the first line, or of the document's start."""
    first = text.splitlines()[0]
    try:
        row = json.loads(first)
        keys = set(row)
    except (ValueError, TypeError, RecursionError):
        keys = {key for key in ("input_lens", "output_lens", "request_throughput", "duration") if f'"{key}"' in text}
        keys |= {key for key in ("hash_ids", "input_length", "arrival_s") if f'"{key}"' in first}
    if keys & {"input_lens", "output_lens", "request_throughput", "ttfts"}:
        return "vllm"
    if keys & {"hash_ids", "input_length", "output_length"}:
        return "mooncake"
    if keys & {"arrival_s", "simtool_trace", "arrival_ms", "arrival_ns"}:
        return "jsonl"
    if keys & {"conversations", "conversation", "input_tokens", "prompt_len", "input_len", "prompt_tokens"}:
        return "sharegpt"
    rule = "JSON of no known trace format"
    raise InputError(path, rule, f"name one with --trace-format: {', '.join(READERS)}")


def write_trace(workload: Workload, path: str | Path) -> None:
    """Write simtool's own JSONL (gzip when the name ends in .gz), to a temporary file first, then renamed.

    read_trace gives the same columns back. Raises InputError when the place cannot be written.
    """
    with output_file(Path(path)) as building, _text(building) as out:
        lines = trace_lines(workload)
        while block := "".join(islice(lines, 4096)):
            out.write(block)


def trace_lines(workload: Workload) -> Iterator[str]:
    """simtool's own JSONL: a header, then a line a request; columns that a workload lacks are left out."""
    header = {
        "simtool_trace": OWN_VERSION,
        "prefix_block_tokens": workload.prefix_block_tokens,
        "max_concurrency": workload.max_concurrency,
        "warmup_requests": workload.warmup_requests,
        "source": workload.source,
    }
    yield json.dumps(header) + "\n"
    offsets = workload.prefix_offsets
    for row in range(workload.num_requests):
        request: dict[str, object] = {
            "arrival_s": float(workload.arrival_s[row]),
            "input_tokens": int(workload.input_tokens[row]),
            "output_tokens": int(workload.output_tokens[row]),
        }
        if len(workload.priority):
            request["priority"] = int(workload.priority[row])
        if len(offsets):
            request["prefix"] = workload.prefix_ids[offsets[row] : offsets[row + 1]].tolist()
        if len(workload.follows):
            request |= {"follows": int(workload.follows[row]), "think_s": float(workload.think_s[row])}
        yield json.dumps(request) + "\n"


@contextmanager
def _text(path: Path) -> Iterator[TextIO]:
    """The file opened to write text, packed when its name ends in .gz (without a date: same rows, same bytes)."""
    with path.open("wb") as raw:
        packed = gzip.GzipFile("", "wb", 6, raw, mtime=0) if path.name.endswith(".gz") else nullcontext(raw)
        with packed as stream, io.TextIOWrapper(cast(io.BufferedWriter, stream), encoding="utf-8") as out:
            yield out
