"""The result file of `vllm bench serve --save-result --save-detailed`, read as the workload that was served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from simtool.errors import InputError
from simtool.traces.columns import TraceColumns
from simtool.traces.numbers import finite_numbers, whole_numbers
from simtool.traces.source_file import json_document
from simtool.workload import Workload

HINT = "save it with --save-result --save-detailed"


def read_vllm_result(path: Path) -> Workload:
    """Lengths, and arrivals where the file has `start_times` (newer vLLM); else all arrive at 0, and `source` says so.

    `max_concurrency` of the file becomes the workload's. Failed requests (no output) are dropped and counted.
    """
    document = json_document(path)
    input_lens, output_lens = (column(document, key, path) for key in ("input_lens", "output_lens"))
    trace = TraceColumns(f"{path.name}: vllm")
    rows = np.arange(len(input_lens))
    inputs = whole_numbers(input_lens, "input_lens", path, rows.tolist(), least=1)
    outputs = whole_numbers(output_lens, "output_lens", path, rows.tolist(), least=0)
    if len(inputs) != len(outputs):
        raise InputError(path, f"{len(inputs)} input_lens but {len(outputs)} output_lens", "the file may be damaged")
    arrival_s = np.zeros(len(inputs))
    if document.get("start_times"):
        arrival_s = finite_numbers(column(document, "start_times", path), "start_times", path, rows.tolist())
        if len(arrival_s) != len(inputs):
            raise InputError(path, f"{len(arrival_s)} start_times for {len(inputs)} requests")
    else:
        trace.notes.append(f"no start_times in the file (request rate {document.get('request_rate')}): all at 0")
    limit = document.get("max_concurrency")
    trace.max_concurrency = int(whole_numbers([limit or 0], "max_concurrency", path, [1], least=0)[0])
    keep = outputs > 0
    trace.dropped = int(np.count_nonzero(~keep))
    if trace.max_concurrency:
        arrival_s = np.zeros(len(inputs))  # the closed loop decides when each is sent
    trace.extend(arrival_s[keep], inputs[keep].astype(np.int32), outputs[keep].astype(np.int32))
    return trace.finish(shift_to_zero=True)


def column(document: dict[str, Any], key: str, path: Path) -> list[Any]:
    """A list of the document by its key."""
    values = document.get(key)
    if not isinstance(values, list):
        raise InputError(path, f"the result has no list {key!r}", HINT)
    return values
