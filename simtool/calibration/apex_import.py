"""Importer of apex_plus' collectives as MeasuredSets (microsoft/apex_plus, MIT): comm/GPU/KIND.csv, microseconds, KiB.

Rows of half elements on one node; rows of 0 KiB are latency alone and left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from simtool.calibration.collective_samples import APEX_FILES, Samples, apex_key, apex_point
from simtool.calibration.importing_rows import choose_folders, read_collectives
from simtool.calibration.measured_set import MeasuredSet
from simtool.errors import InputError

NAMES: Mapping[str, str] = {
    "H100-SXM-80GB": "h100-sxm",
    "H200-SXM-141GB": "h200",
    "V100-PCIE-16GB": "v100-pcie-16g",
}


def read_apex(path: Path, device: str | None, library: str | None) -> Iterator[MeasuredSet]:
    """One unchecked set a GPU. library: what to call the collectives, "nccl" unless given."""
    root = next((path / below for below in ("profile/comm", "comm") if (path / below).is_dir()), path)
    if not root.is_dir():
        raise InputError(path, "is no folder", "apex_plus' repository or its profile/comm")
    files = {kind: f"{stem}.csv" for kind, stem in APEX_FILES.items()}
    found = {folder.name for folder in root.glob("*") if any((folder / file).is_file() for file in files.values())}
    for folder, name in choose_folders(found, NAMES, device, path).items():
        collectives: list[Samples] = []
        for kind, file in files.items():
            if (root / folder / file).is_file():
                collectives += read_collectives(root / folder / file, apex_key(kind, "1"), apex_point)
        yield MeasuredSet(
            device=name,
            library=library or "nccl",
            version="apex_plus",
            source="microsoft/apex_plus communication profiles",
            licence="MIT",
            collectives=tuple(collectives),
        )
