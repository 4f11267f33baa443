"""A workload as a CSV in the format of the Azure LLM inference traces: time stamp, prompt tokens, output tokens."""

from __future__ import annotations

import csv
import gzip
import io
from contextlib import closing
from pathlib import Path

import numpy as np

from simtool.errors import InputError
from simtool.files import output_file
from simtool.workload import Workload

_START = np.datetime64("2024-01-01T00:00:00", "ns")  # the format wants dates; readers only use differences


def write_azure(workload: Workload, path: Path) -> None:
    """Write arrival, prompt and output tokens (gzip when the name ends in .gz). Raises InputError.

    The format has no place for prefixes, sessions, priorities or a closed loop: such a workload is refused.
    """
    lost = [
        name
        for name, present in (
            ("shared prefixes", len(workload.prefix_ids)),
            ("sessions", len(workload.follows)),
            ("priorities", len(workload.priority)),
            ("a concurrency limit", workload.max_concurrency),
        )
        if present
    ]
    if lost:
        raise InputError(str(path), f"Azure's CSV cannot hold {', '.join(lost)}", "write a .jsonl file")
    stamps = _START + np.round(workload.arrival_s * 1e9).astype("timedelta64[ns]")
    with output_file(path) as building, closing(_opened(building)) as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("TIMESTAMP", "ContextTokens", "GeneratedTokens"))
        texts = np.datetime_as_string(stamps, unit="ns")
        for stamp, prompt, output in zip(texts, workload.input_tokens, workload.output_tokens, strict=True):
            # seven decimals, as the published traces have
            writer.writerow((str(stamp).replace("T", " ")[:-2], int(prompt), int(output)))


def _opened(path: Path) -> io.TextIOBase:
    """The file for text, packed where its name says so; the same content gives the same bytes."""
    if path.name.endswith(".gz"):
        return io.TextIOWrapper(gzip.GzipFile(path, "wb", mtime=0), encoding="utf-8")
    return path.open("w", encoding="utf-8", newline="")
