"""Importer of nccl-tests' text output (all_reduce_perf and its siblings): microseconds, bytes, GB/s.

The out-of-place columns of every row. A row whose bandwidths do not follow from its size, its time and the number of
ranks, or that reports wrong values, is refused by its line. A log may hold several runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simtool.calibration.collective_samples import Samples
from simtool.calibration.importing_rows import catalogue_name, find_device
from simtool.calibration.measured_set import MeasuredSet
from simtool.calibration.sanity_collectives import bus_bytes
from simtool.errors import InputError
from simtool.units import US

KINDS: Mapping[str, str] = {
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "alltoall": "all_to_all",
    "sendrecv": "send_recv",
}
PROGRAM = re.compile(r"(?:^|[\s/])([a-z]+(?:_[a-z]+)*)_perf\b")
RANK = re.compile(r"^#\s+Rank\s+\d+\s.*?\bon\s+(\S+)\s+device\s+\d+\s+\[\S+\]\s*(.*?)\s*$")
VERSION = re.compile(r"\bnccl-library=(\d+)|NCCL version (\S+)")
COLUMNS = 8  # time, algbw, busbw, #wrong: out of place, then in place
MAX_BYTES = 100_000_000
SLACK = 0.01  # of a bandwidth, beside the rounding of what is printed


@dataclass(slots=True, kw_only=True)
class _Run:
    """One run as far as it has been read."""

    kind: str
    hosts: list[str]
    rows: list[tuple[int, float, float]]  # line, bytes, seconds
    unit: bool = False  # its header says us and GB/s


def read_nccl_tests(path: Path, device: str | None, library: str | None) -> Iterator[MeasuredSet]:
    """One unchecked set. device: needed where the log names no GPU. library: "nccl" unless given."""
    lines = _text(path).splitlines()
    found = [match for match in map(RANK.match, lines) if match]
    name = device or next((match[2] for match in found if match[2]), "")
    if not name:
        raise InputError(path, "names no GPU", "say on which it ran, as --device a100-80g")
    versions = [a or b for a, b in VERSION.findall("\n".join(lines))]
    runs = _runs(lines, path)
    yield MeasuredSet(
        device=_device_name(name),
        library=library or "nccl",
        version=versions[0] if versions else "unknown",
        source=f"nccl-tests {path.name}",
        collectives=tuple(_samples(run, path, library or "nccl") for run in runs if run.rows),
    )


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(path, f"is larger than {MAX_BYTES} bytes", "the text output of nccl-tests")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"cannot be read: {error}", "the text output of nccl-tests") from None


def _device_name(name: str) -> str:
    short = re.sub(r"(?i)^(nvidia|amd|tesla)\s+", "", name)
    return next((catalogue_name(n) for n in (name, short) if find_device(n) is not None), name)


def _runs(lines: list[str], path: Path) -> list[_Run]:
    """Runs start at their "# nThread" line; the program's name stands before or right after it, or is the file's."""
    named = PROGRAM.search(path.name.replace(".", " ").replace("-", " "))
    program = named[1] if named else ""
    runs = [_Run(kind=program, hosts=[], rows=[])]
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if match := PROGRAM.search(line):
            program = match[1]
            if not runs[-1].rows:
                runs[-1].kind = program
        if text.startswith("# nThread") and (runs[-1].rows or runs[-1].hosts):
            runs.append(_Run(kind=program, hosts=[], rows=[]))
        if rank := RANK.match(text):
            runs[-1].hosts.append(rank[1])
        elif text.startswith("#") and "(us)" in text and "(GB/s)" in text:
            runs[-1].unit = True
        elif text[:1].isdigit():
            runs[-1].rows += _row(text.split(), runs[-1], f"{path} line {number}", number)
    return runs


def _row(fields: list[str], run: _Run, where: str, line: int) -> list[tuple[int, float, float]]:
    if run.kind not in KINDS:
        known = ", ".join(f"{kind}_perf" for kind in KINDS)
        raise InputError(where, "belongs to no known collective", f"name the file as its program: one of {known}")
    if not run.unit:
        raise InputError(where, "has no header with (us) and (GB/s) above it", "the whole output of nccl-tests")
    if len(run.hosts) < 2:
        raise InputError(where, "has no '# Rank' lines of two or more ranks above it", "the whole output of nccl-tests")
    try:
        size, printed = float(fields[0]), fields[-COLUMNS : -COLUMNS + 4]
        time, _, _ = (float(field) for field in printed[:3])
        wrong = 0.0 if printed[3] == "N/A" else float(printed[3])
    except (ValueError, IndexError):
        raise InputError(where, "is no whole row of nccl-tests", "the file is cut or damaged") from None
    if size == 0:
        return []  # fewer elements than ranks
    if wrong > 0:
        raise InputError(where, f"reports {printed[3]} wrong values", "such a run measures nothing: repeat it")
    _check_rates(where, size, printed, KINDS[run.kind], len(run.hosts))
    return [(line, size, time * US)]


def _check_rates(where: str, size: float, printed: list[str], kind: str, ranks: int) -> None:
    """algbw is size over time, busbw is algbw times what the collective moves; within what rounding can explain."""
    time, algbw, busbw = (float(field) for field in printed[:3])
    half_time, half_alg, half_bus = (0.5 * 10.0 ** -len(field.partition(".")[2]) for field in printed[:3])
    if not time > 0:
        raise InputError(where, f"takes {printed[0]} us", "a positive time")
    rate = size / time / 1e3  # bytes a microsecond are 1e6 bytes/s
    if not abs(algbw - rate) <= half_alg + rate * (half_time / time + SLACK):
        raise InputError(
            where, f"says {algbw:g} GB/s, but {size:g} bytes in {time:g} us are {rate:.4g} GB/s", "times are in us"
        )
    factor = float(bus_bytes(kind, ranks, np.array(1.0)))
    if not abs(busbw - factor * algbw) <= half_bus + factor * (half_alg + algbw * SLACK):
        raise InputError(
            where,
            f"says busbw {busbw:g} GB/s, but {kind} over {ranks} ranks has {factor:.4g} x algbw",
            "one '# Rank' line a rank belongs above",
        )


def _samples(run: _Run, path: Path, library: str) -> Samples:
    nodes = len(set(run.hosts))
    return Samples(
        kind=KINDS[run.kind],
        library=library if nodes == 1 else f"{library}-{nodes}nodes",
        ranks=len(run.hosts),
        size_bytes=np.array([size for _, size, _ in run.rows]),
        seconds=np.array([seconds for _, _, seconds in run.rows]),
        source=path.name,
        lines=tuple(line for line, _, _ in run.rows),
    )
