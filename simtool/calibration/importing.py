"""Other people's measurements as MeasuredSets: `import_measurements(format, path)`.

Every format states its unit; all times leave here in seconds, all sizes in bytes. Rows that cannot be right are dropped
and named in `refused`; a table with more than a few of them, or with two units in it, is an InputError with its line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from simtool.calibration.aiconfigurator_import import read_aiconfigurator
from simtool.calibration.apex_import import read_apex
from simtool.calibration.importing_rows import find_device
from simtool.calibration.kineto import read_kineto
from simtool.calibration.llmservingsim import joined
from simtool.calibration.llmservingsim_import import read_llmservingsim
from simtool.calibration.measured_set import MeasuredSet
from simtool.calibration.measurements import Measurements
from simtool.calibration.nccl_tests import read_nccl_tests
from simtool.calibration.sanity import checked
from simtool.calibration.sanity_collectives import checked_samples
from simtool.calibration.splitwise_import import read_splitwise
from simtool.calibration.vidur_import import read_vidur
from simtool.errors import InputError
from simtool.hardware.device import nearest_names

FORMATS: Mapping[str, str] = {
    "aiconfigurator": "kernel and collective tables (ms): a folder of csv.gz, a package's folder, or 'installed'",
    "vidur": "profiling folders (ms): mlp.csv, attention.csv, all_reduce.csv, send_recv.csv",
    "llmservingsim": "layer profiles: perf/ (us) with skew.csv, v0/ layers.csv (ns) and attention.csv (ms)",
    "apex": "collectives of apex_plus (us, KiB)",
    "splitwise": "perf_model.csv (ms): whole steps, kept apart from kernels",
    "nccl-tests": "text output of all_reduce_perf and its siblings (us, bytes)",
    "kineto": "PyTorch profiler trace with shapes (us), .json or .json.gz",
}
_READERS: Mapping[str, Callable[[Path, str | None, str | None], Iterator[MeasuredSet]]] = {
    "aiconfigurator": read_aiconfigurator,
    "vidur": read_vidur,
    "llmservingsim": read_llmservingsim,
    "apex": read_apex,
    "splitwise": read_splitwise,
    "nccl-tests": read_nccl_tests,
    "kineto": read_kineto,
}


def import_measurements(
    format: str, path: Path, *, device: str | None = None, library: str | None = None
) -> tuple[MeasuredSet, ...]:
    """Everything of use at `path`, one set a device and library.

    format: one of FORMATS. device: only this one (catalogue name, alias or the folder's name); for a single file the
    name of the device it was measured on, which need not be in the catalogue. library: only this one, where a format
    tells (aiconfigurator, also as NAME==VERSION); elsewhere what to call it.
    """
    if format not in FORMATS:
        raise InputError(format, "is no known format", nearest_names(format, FORMATS))
    sets = tuple(_checked_set(found) for found in _READERS[format](path, device, library))
    if not any(found.tables or found.collectives for found in sets):
        raise InputError(path, f"holds nothing that {format} tables can give", FORMATS[format])
    return sets


def _checked_set(found: MeasuredSet) -> MeasuredSet:
    known = find_device(found.device)
    tables = [checked(rows, known) for rows in found.tables if len(rows.seconds)]
    return replace(
        found,
        tables=tuple(_joined_tables(tables)),
        collectives=tuple(checked_samples(samples, known) for samples in found.collectives),
    )


def _joined_tables(tables: list[Measurements]) -> Iterator[Measurements]:
    """One a family, dtype and set of dims; where several are joined, a refusal names its table."""
    groups: dict[tuple[str, ...], list[Measurements]] = {}
    for rows in tables:
        groups.setdefault((rows.family, rows.dtype, *sorted(rows.dims)), []).append(rows)
    for parts in groups.values():
        yield parts[0] if len(parts) == 1 else joined([_named(rows) for rows in parts])


def _named(rows: Measurements) -> Measurements:
    return replace(rows, refused=tuple(replace(r, reason=f"{rows.table}: {r.reason}") for r in rows.refused))
