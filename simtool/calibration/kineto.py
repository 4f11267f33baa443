"""Importer of PyTorch profiler traces (Kineto JSON of export_chrome_trace, record_shapes=True): microseconds.

An operator takes what its kernels take; in a trace of the CPU alone, what the call takes. GEMMs, causal prefill and
one-token decode attention and collectives are read; everything else is counted in machine["left_out"].
A collective's kernel also waits for the slowest rank. Repeated calls over WARM_UP times their median are warm-up.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simtool.calibration.collective_samples import Samples
from simtool.calibration.importing_rows import catalogue_name, find_device
from simtool.calibration.kineto_events import Call, Event, calls_of, read_trace
from simtool.calibration.kineto_operators import Point, collective_of, operator_of, recognised
from simtool.calibration.measured_set import MeasuredSet
from simtool.calibration.measurements import Measurements
from simtool.errors import InputError
from simtool.units import US

Timed = tuple[Point, int, float, str]  # what, line, seconds, kernel
WARM_UP = 5.0
NAMED = 12  # operators named in left_out


def read_kineto(path: Path, device: str | None, library: str | None) -> Iterator[MeasuredSet]:
    """One unchecked set. device: needed where the trace names no GPU. library: "torch" unless given."""
    trace = read_trace(path)
    name = device or _gpu_name(trace)
    if not name:
        raise InputError(path, "names no GPU", "say where it ran, as --device my-cpu")
    calls, orphans = calls_of(trace, path)
    on_gpu = bool(orphans) or any(call.kernels for call in calls)
    left_out: Counter[str] = Counter()
    timed = _steady(_timed(calls, on_gpu, left_out), left_out)
    collectives = list(_collectives(calls, orphans, left_out))
    if not timed and not collectives and not any("Input Dims" in call.args for call in calls):
        raise InputError(path, "has no shapes", "profile with record_shapes=True")
    yield MeasuredSet(
        device=name,
        library=library or "torch",
        version=str(trace.get("pytorch_version", "unknown")),
        source=f"PyTorch profiler trace {path.name}",
        machine={"left_out": _listed(left_out)},
        tables=tuple(_tables(timed, path.name)),
        collectives=tuple(_samples(collectives, path.name)),
    )


def _gpu_name(trace: Mapping[str, Any]) -> str:
    properties = trace.get("deviceProperties")
    first = properties[0] if isinstance(properties, list) and properties else None
    name = str(first.get("name", "")) if isinstance(first, dict) else ""
    short = name.removeprefix("NVIDIA ").removeprefix("AMD ")
    return next((catalogue_name(n) for n in (name, short) if n and find_device(n) is not None), name)


def _timed(calls: Sequence[Call], on_gpu: bool, left_out: Counter[str]) -> list[Timed]:
    """Every operator that is read, with the time of all kernels launched inside of it."""
    kernels: dict[int, list[Event]] = defaultdict(list)
    owners: dict[int, Call] = {}
    for call in calls:
        owner = recognised(call)
        if owner is not None:
            kernels[id(owner)] += call.kernels
            owners[id(owner)] = owner
        elif call.name != "record_param_comms" and (call.kernels or not on_gpu):
            left_out[call.name] += max(1, len(call.kernels))
    found = []
    for key, owner in owners.items():
        point = operator_of(owner, [str(kernel.get("name")) for kernel in kernels[key]])
        if isinstance(point, str) or (on_gpu and not kernels[key]):
            left_out[f"{owner.name} ({point if isinstance(point, str) else 'no kernel'})"] += 1
            continue
        spans = [kernel["dur"] for kernel in kernels[key]] if on_gpu else [owner.event["dur"]]
        name = str(kernels[key][0].get("name")) if kernels[key] else owner.name
        found.append((point, owner.line, float(sum(spans)) * US, name[:80]))
    return found


def _steady(timed: list[Timed], left_out: Counter[str]) -> list[Timed]:
    groups: dict[Point, list[float]] = defaultdict(list)
    for point, _, seconds, _ in timed:
        groups[point].append(seconds)
    usual = {point: sorted(times)[(len(times) - 1) // 2] for point, times in groups.items()}
    kept = [item for item in timed if not item[2] > WARM_UP * usual[item[0]]]
    if len(kept) < len(timed):
        left_out["warm-up calls"] += len(timed) - len(kept)
    return kept


def _tables(timed: Sequence[Timed], table: str) -> Iterator[Measurements]:
    for family, dtype in sorted({(point.family, point.dtype) for point, *_ in timed}):
        rows = [item for item in timed if (item[0].family, item[0].dtype) == (family, dtype)]
        yield Measurements(
            family=family,
            dtype=dtype,
            dims={name: np.array([dict(item[0].dims)[name] for item in rows]) for name, _ in rows[0][0].dims},
            seconds=np.array([seconds for _, _, seconds, _ in rows]),
            lines=np.array([line for _, line, _, _ in rows], dtype=np.intp),
            table=f"{table} traceEvents",
            kernels=tuple(sorted({kernel for *_, kernel in rows})),
        )


def _collectives(
    calls: Sequence[Call], orphans: Sequence[tuple[int, Event]], left_out: Counter[str]
) -> Iterator[tuple[str, int, float, int, float]]:
    """(kind, ranks, bytes, line, seconds). The kernel says what it sends, else the record_param_comms around it."""
    launched = [(call.line, kernel, call.args) for call in calls for kernel in call.kernels]
    for line, kernel, around in [*launched, *((line, kernel, {}) for line, kernel in orphans)]:
        args = {**around, **kernel.get("args", {})}
        if "Collective name" not in args:
            if not around:
                left_out["kernels of no operator"] += 1
            continue
        point = collective_of(args)
        if isinstance(point, str):
            left_out[point] += 1
        else:
            yield *point, line, kernel["dur"] * US


def _samples(found: Sequence[tuple[str, int, float, int, float]], source: str) -> Iterator[Samples]:
    for kind, ranks in sorted({(kind, ranks) for kind, ranks, *_ in found}):
        rows = [row for row in found if row[:2] == (kind, ranks)]
        yield Samples(
            kind=kind,
            library="nccl",
            ranks=ranks,
            size_bytes=np.array([size for _, _, size, _, _ in rows]),
            seconds=np.array([seconds for *_, seconds in rows]),
            source=source,
            lines=tuple(line for _, _, _, line, _ in rows),
        )


def _listed(left_out: Counter[str]) -> str:
    named = [f"{name} {count}" for name, count in left_out.most_common(NAMED)]
    rest = sum(left_out.values()) - sum(count for _, count in left_out.most_common(NAMED))
    return ", ".join([*named, *([f"others {rest}"] if rest else [])])
