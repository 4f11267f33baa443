"""Importer of AIConfigurator's tables as MeasuredSets (ai-dynamo/aiconfigurator, Apache-2.0): latency in milliseconds,
message sizes of nccl_perf and custom_allreduce_perf in elements, DeepEP in microseconds (its columns say so).

Of experts only the routing and the gate that the simulator assumes, of prefill attention only bf16 arithmetic. Tables
of whole MLA modules are left out: they hold GEMMs too, which only a fit can take off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from simtool.calibration.aiconfigurator import TABLES, needed_columns, table_rows
from simtool.calibration.aiconfigurator_mla import with_absorbed
from simtool.calibration.aiconfigurator_tables import (
    INSTALLED,
    SYSTEM_NAMES,
    TableFile,
    find_root,
    list_tables,
    newest,
    version_key,
)
from simtool.calibration.collective_samples import (
    DEEPEP_RANKS,
    Key,
    Row,
    Samples,
    custom_key,
    deepep_columns,
    nccl_key,
    nccl_point,
)
from simtool.calibration.importing_rows import choose_folders, find_device, group_collectives
from simtool.calibration.measured_set import MeasuredSet
from simtool.calibration.measurements import Measurements
from simtool.errors import InputError
from simtool.hardware.device import Device, nearest_names

KERNELS = {kind.prefix: kind for kind in TABLES}
NCCL, CUSTOM = "nccl_perf", "custom_allreduce_perf"
DEEPEP = ("wideep_deepep_ll_perf", "wideep_deepep_normal_perf")
SOURCE, LICENCE = "ai-dynamo/aiconfigurator kernel tables", "Apache-2.0"


def read_aiconfigurator(path: Path, device: str | None, library: str | None) -> Iterator[MeasuredSet]:
    """One unchecked set a system and library. library: a name, or NAME==VERSION for another than the newest."""
    root = find_root(path)
    if device is None and str(path) == INSTALLED:
        raise InputError(INSTALLED, "holds tables of many devices", "name one, as --device h200")
    tables = list(list_tables(root, (*KERNELS, NCCL, CUSTOM, *DEEPEP)))
    chosen = choose_folders({table.system for table in tables}, SYSTEM_NAMES, device, path)
    wanted, _, version = (library or "").partition("==")
    libraries = {table.library for table in tables if table.system in chosen}
    if wanted and wanted not in libraries:
        raise InputError(wanted, f"has no table of {', '.join(chosen.values())}", nearest_names(wanted, libraries))
    if version and version not in {table.version for table in tables if table.library == wanted}:
        known = {table.version for table in tables if table.library == wanted}
        raise InputError(f"{wanted}=={version}", "has no table", "there are " + ", ".join(sorted(known)))
    for system, name in chosen.items():
        own = [table for table in tables if table.system == system]
        engines = sorted({table.library for table in own} - {"nccl"}) or ["nccl"]
        for engine in [wanted] if wanted else engines:
            mine = newest([table for table in own if table.library == engine], version)
            shared = newest([table for table in own if table.library == "nccl"]) if engine != "nccl" else []
            if mine:
                yield _set(name, engine, [*mine, *shared])


def _set(name: str, library: str, files: Sequence[TableFile]) -> MeasuredSet:
    known = find_device(name)
    tables = [rows for file in files if file.prefix in KERNELS for rows in _kernels(file, known)]
    collectives = [samples for file in files for samples in _collectives(file, known)]
    left_out = ["mla_decode: needs the device's peaks"] if known is None else []
    versions = sorted({file.version for file in files if file.library == library}, key=version_key)
    return MeasuredSet(
        device=name,
        library=library,
        version=versions[-1],
        source=SOURCE,
        licence=LICENCE,
        machine={
            "system": files[0].system,
            "tables": ", ".join(f"{file.prefix} {file.version}" for file in files),
            "left_out": "; ".join(["whole-module MLA tables", *left_out]),
        },
        tables=tuple(tables),
        collectives=tuple(collectives),
    )


def _kernels(file: TableFile, device: Device | None) -> Iterator[Measurements]:
    kind = KERNELS[file.prefix]
    for rows in table_rows(file.columns(needed_columns(kind)), kind, file.name, file.first_line):
        if kind.family == "mla_decode":
            if device is not None:
                yield with_absorbed(rows, device)
        else:
            yield rows


def _collectives(file: TableFile, device: Device | None) -> Iterator[Samples]:
    if file.prefix == NCCL:
        yield from group_collectives(file.rows(), nccl_key, nccl_point, file.name, file.first_line)
    elif file.prefix == CUSTOM:
        yield from group_collectives(file.rows(), _custom_key, nccl_point, file.name, file.first_line)
    elif file.prefix in DEEPEP and (device is None or device.per_node == DEEPEP_RANKS):
        for key, point in deepep_columns(low_latency="_ll_" in file.prefix):
            yield from group_collectives(file.rows(), _on_one_node(key), point, file.name, file.first_line)


def _on_one_node(key: Callable[[Row], Key | None]) -> Callable[[Row], Key | None]:
    return lambda row: key(row) if row.get("node_num", "1") == "1" else None


def _custom_key(row: Row) -> Key:
    """As custom_key; the package names TensorRT-LLM's own backend where the csv has none."""
    return custom_key({**row, "backend": ""}) if row.get("backend", "").startswith("trtllm") else custom_key(row)
