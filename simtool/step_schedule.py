"""StepSchedule: in which order, on which streams and after what the operators of a step's nano-batches are launched.

`simtool overlap --solve --schedule` writes it, `simtool execute --schedule` follows it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simtool.errors import InputError
from simtool.files import output_file, read_text
from simtool.json_text import json_text

FORMAT = 1
_MAX_BYTES = 64 * 2**20
_HINT = "give the file that `simtool overlap --solve --schedule` wrote"


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Operators of one layer (the n-th of its kind), one after the other, for some of the nano-batches.

    after: launches, by place, that must have ended. All come before this one.
    """

    layer: int
    operators: tuple[str, ...]
    nano_batches: tuple[int, ...]
    stream: int
    after: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KindSchedule:
    """Layers of one kind of one stage, `layers` of them. launches: of them all, in the order in which they are made."""

    layers: int
    operators: tuple[str, ...]
    launches: tuple[Launch, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSchedule:
    """kinds: stage after stage, in each in the order in which they first appear. batch: the step it was solved for."""

    model: str
    batch: str
    tp: int
    pp: int
    dp: int
    ep: int
    nano_batches: int
    kinds: tuple[KindSchedule, ...]


def save_schedule(schedule: StepSchedule, path: Path) -> None:
    """Write it as JSON."""
    with output_file(path) as building:
        building.write_text(json_text({"simtool_schedule": FORMAT, "schedule": schedule}, indent=None), "utf-8")


def load_schedule(path: Path) -> StepSchedule:
    """What `save_schedule` wrote. Raises InputError for anything else."""
    text = read_text(path, kind="schedule", max_bytes=_MAX_BYTES)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(str(path), "is no JSON", _HINT) from error
    if not isinstance(found, dict) or set(found) != {"simtool_schedule", "schedule"}:
        raise InputError(str(path), "is no schedule", _HINT)
    if found["simtool_schedule"] != FORMAT:
        raise InputError(found["simtool_schedule"], f"is no format of schedules that is known here ({FORMAT})", _HINT)
    try:
        schedule = _schedule(found["schedule"])
        _check(schedule)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(str(path), f"is a damaged schedule: {error}", _HINT) from None
    return schedule


def _schedule(row: dict[str, Any]) -> StepSchedule:
    kinds = tuple(
        KindSchedule(
            layers=_whole(kind["layers"]),
            operators=_names(kind["operators"]),
            launches=tuple(_launch(launch) for launch in kind["launches"]),
        )
        for kind in row["kinds"]
    )
    counts = {name: _whole(row[name]) for name in ("tp", "pp", "dp", "ep", "nano_batches")}
    model, batch = _names([row["model"], row["batch"]])
    return StepSchedule(model=model, batch=batch, kinds=kinds, **counts)


def _launch(row: dict[str, Any]) -> Launch:
    return Launch(
        layer=_whole(row["layer"]),
        operators=_names(row["operators"]),
        nano_batches=tuple(_whole(batch) for batch in row["nano_batches"]),
        stream=_whole(row["stream"]),
        after=tuple(_whole(place) for place in row["after"]),
    )


def _whole(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**31:
        raise ValueError(f"{value!r:.40} is no count")
    return value


def _names(values: object) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError("names are text")
    return tuple(values)


_MOST_NANO_BATCHES, _MOST_STREAMS = 64, 64


def _check(schedule: StepSchedule) -> None:
    """Each operator of each layer and nano-batch once, after launches that come before. Raises ValueError."""
    if not 1 <= schedule.nano_batches <= _MOST_NANO_BATCHES or not schedule.kinds:
        raise ValueError(f"it has 1 to {_MOST_NANO_BATCHES} nano-batches and a kind of layers")
    for kind in schedule.kinds:
        done = [
            (launch.layer, name, batch)
            for launch in kind.launches
            for name in launch.operators
            for batch in launch.nano_batches
        ]
        wanted = kind.layers * len(set(kind.operators)) * schedule.nano_batches
        fits = all(
            layer < kind.layers and name in kind.operators and batch < schedule.nano_batches
            for layer, name, batch in done
        )
        if not fits or len(set(done)) != wanted:
            raise ValueError("an operator of a layer and a nano-batch is missing, or is none of theirs")
        if any(max(launch.after, default=-1) >= place for place, launch in enumerate(kind.launches)):
            raise ValueError("a launch waits for one that comes later")
        if any(launch.stream >= _MOST_STREAMS for launch in kind.launches):
            raise ValueError(f"it has no more than {_MOST_STREAMS} streams")
