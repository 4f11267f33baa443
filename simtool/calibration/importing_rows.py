"""What the importers share: rows of collectives with their lines, names of devices, folders chosen by a device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from simtool.calibration.collective_samples import Key, Point, Row, Samples, read_rows
from simtool.errors import InputError
from simtool.hardware.device import Device, load_device, nearest_names


def find_device(name: str) -> Device | None:
    """The catalogue's device of that name or alias, or None."""
    try:
        return load_device(name)
    except InputError:
        return None


def catalogue_name(name: str) -> str:
    """The catalogue's own name of a device, or `name` itself if the catalogue lacks it."""
    found = find_device(name)
    return name if found is None else found.name


def choose_folders(found: Iterable[str], names: Mapping[str, str], device: str | None, path: Path) -> dict[str, str]:
    """Folder -> device name, of the folders `found`; only those of `device` if it is given, by either name.

    names: folder -> catalogue name where the two differ. InputError if nothing is left.
    """
    devices = {folder: names.get(folder, catalogue_name(folder)) for folder in sorted(found)}
    if not devices:
        raise InputError(path, "holds no table of this format", "see `simtool calibrate import --help`")
    if device is None:
        return devices
    wanted = {device, catalogue_name(device)}
    chosen = {folder: name for folder, name in devices.items() if folder in wanted or name in wanted}
    if not chosen:
        raise InputError(device, f"has no table under {path}", nearest_names(device, {*devices, *devices.values()}))
    return chosen


def read_collectives(path: Path, key: Callable[[Row], Key | None], point: Callable[[Row], Point]) -> list[Samples]:
    """The collectives of a csv or csv.gz, unchecked, with the line of every point."""
    return group_collectives(read_rows(path), key, point, f"{path.parent.name}/{path.name}")


def group_collectives(
    rows: Sequence[Row],
    key: Callable[[Row], Key | None],
    point: Callable[[Row], Point],
    source: str,
    first_line: int = 2,
) -> list[Samples]:
    """`rows` as Samples by kind, library and ranks. InputError names a row that cannot be read."""
    groups: dict[Key, list[tuple[int, Point]]] = {}
    for line, row in enumerate(rows, start=first_line):
        try:
            name = key(row)
            if name is not None:
                groups.setdefault(name, []).append((line, point(row)))
        except KeyError as error:
            raise InputError(f"{source} line {line}", f"lacks or does not know {error}", "check the table") from None
        except (ValueError, TypeError, AttributeError) as error:
            rule = f"cannot be read: {error}"
            raise InputError(f"{source} line {line}", rule, "the table is cut or damaged") from None
    return [
        Samples(
            kind=kind,
            library=library,
            ranks=ranks,
            size_bytes=np.array([size for _, (size, _) in points]),
            seconds=np.array([seconds for _, (_, seconds) in points]),
            source=source,
            lines=tuple(line for line, _ in points),
        )
        for (kind, library, ranks), points in sorted(groups.items())
    ]
