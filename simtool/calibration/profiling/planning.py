"""Planning: from a request to the cells and groups that share its budget, with what a journal already holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from simtool.calibration.measured_set import Contention, HostTime
from simtool.calibration.points import (
    POINT_DIMS,
    JournalRow,
    KernelPoint,
    Row,
    Skipped,
    TimedCollective,
    TimedCopy,
    TimedPoint,
)
from simtool.calibration.profiling.bench import Bench, CannotMeasureError
from simtool.calibration.profiling.cells import Cell, ExtraGroup
from simtool.calibration.profiling.design import Limits, candidates
from simtool.calibration.profiling.request import EXTRAS, ProfileRequest
from simtool.calibration.profiling.shapes import KernelShape, served_shapes

# Shares of the budget: families with more dims, and more of a step's time, get more.
WEIGHTS: Mapping[str, float] = {
    "gemm": 5.0,
    "moe": 3.0,
    "attention_prefill": 4.0,
    "attention_decode": 3.0,
    "mla_prefill": 2.5,
    "mla_decode": 1.5,
    "elementwise": 2.0,
    "embedding": 0.7,
    "sampling": 0.7,
    "host": 0.5,
    "copies": 1.0,
    "contention": 1.0,
    "collectives": 1.0,
}
SAMPLING_DTYPE = "fp32"  # engines sample in fp32 whatever the model's dtype is


def planned_cells(
    request: ProfileRequest, bench: Bench, facts: Mapping[str, str | float], dtypes: Sequence[str]
) -> tuple[list[Cell], list[Skipped]]:
    """A cell for each asked family and dtype that the models use, and those that cannot be measured here."""
    shapes = served_shapes(request.served_models, request.tp_degrees)
    cells: list[Cell] = []
    skipped: list[Skipped] = []
    for family in [name for name in POINT_DIMS if name in request.families]:
        own = [shape for shape in shapes if shape.family == family]
        wanted = (SAMPLING_DTYPE,) if family == "sampling" else tuple(dtypes)
        for dtype in wanted if own else ():
            name = f"{family}/{dtype}"
            try:
                points = _points(own, dtype, bench, facts, request)
            except CannotMeasureError as error:
                skipped.append(Skipped(subject=name, reason=str(error)))
                continue
            left: dict[object, KernelPoint] = {point.key: point for point in points}
            cells.append(Cell(name=name, weight=WEIGHTS[family] / len(wanted), left=left))
    return cells, skipped


def _points(
    shapes: Sequence[KernelShape], dtype: str, bench: Bench, facts: Mapping[str, str | float], request: ProfileRequest
) -> Sequence[KernelPoint]:
    kernels = {shape.kernel: bench.kernel(shape.family, dtype, shape.kernel) for shape in shapes}
    return candidates(shapes, dtype, kernels, _served(bench.limits(facts, dtype), request), request.seed)


def _served(limits: Limits, request: ProfileRequest) -> Limits:
    """The limits, no further than what is to be served."""
    return replace(
        limits,
        most_tokens=min(limits.most_tokens, request.max_num_batched_tokens or math.inf),
        most_batch=min(limits.most_batch, request.max_num_seqs or math.inf),
        longest_context=min(limits.longest_context, request.max_model_len or math.inf),
    )


def planned_extras(request: ProfileRequest, bench: Bench) -> list[ExtraGroup]:
    """A group for each asked kind of measurement that is no kernel of a model."""
    every = bench.extras()
    return [
        ExtraGroup(name=group, weight=WEIGHTS[group], pending=[extra for extra in every if extra.group == group])
        for group in EXTRAS
        if group in request.families
    ]


def replay(rows: Sequence[JournalRow], cells: Sequence[Cell], groups: Sequence[ExtraGroup]) -> None:
    """Bring cells and groups to where the journal's `rows` left them."""
    by_name = {cell.name: cell for cell in cells}
    points = {point.name: (cell, point) for cell in cells for point in cell.left.values()}
    subjects = {row_subject(written.row) for written in rows}
    before = 0.0
    for written in rows:
        row, cost_s, before = written.row, written.at_s - before, written.at_s
        if isinstance(row, TimedPoint):
            cell = by_name.get(f"{row.point.family}/{row.point.dtype}")
            if cell is not None:
                cell.record(row, cost_s)
        elif isinstance(row, Skipped) and row.subject in points:
            cell, point = points[row.subject]
            cell.give_up(point.key, cost_s)
        else:
            for group in groups:
                if any(extra.subject == row_subject(row) for extra in group.pending):
                    group.spent_s += cost_s
    for group in groups:
        left = [extra for extra in group.pending if extra.subject not in subjects]
        group.made, group.pending = len(group.pending) - len(left), left


def row_subject(row: Row) -> str:
    """The subject of the extra that wrote `row`."""
    match row:
        case TimedCopy():
            return copy_subject(row.name, row.size_bytes)
        case TimedCollective():
            return collective_subject(row.library, row.ranks)
        case Contention():
            return contention_subject(row.first, row.second)
        case HostTime():
            return HOST_SUBJECT
        case Skipped():
            return row.subject
        case _:
            return ""


HOST_SUBJECT = "host times"


def copy_subject(name: str, size_bytes: float) -> str:
    """Names one copy."""
    return f"copy {name} {size_bytes:.0f}"


def collective_subject(library: str, ranks: int) -> str:
    """Names the collectives of one group of processes, which are measured together."""
    return f"collectives {library} x{ranks}"


def contention_subject(first: str, second: str) -> str:
    """Names one pair."""
    return f"contention {first} + {second}"
