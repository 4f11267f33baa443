"""Importer of Vidur's profiles as MeasuredSets (microsoft/vidur, MIT): milliseconds, sizes in bytes, fp16.

compute/DEVICE/ORG/MODEL/{mlp,attention}.csv[.gz] and network/DEVICE_TOPOLOGY/{all_reduce,send_recv}.csv[.gz]; of the
latter the rows of full single nodes. Times of collectives are rounded to a microsecond.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from simtool.calibration.collective_samples import Samples, vidur_key, vidur_point
from simtool.calibration.importing_rows import choose_folders, read_collectives
from simtool.calibration.measured_set import MeasuredSet
from simtool.calibration.measurements import Measurements
from simtool.calibration.torch_attention import read_attention
from simtool.calibration.vidur import read_layers
from simtool.errors import InputError

NAMES: Mapping[str, str] = {"a100": "a100-80g", "a40": "a40", "h100": "h100-sxm"}
# Nodes whose devices are joined in pairs only are another machine than those with a switch.
LIBRARIES: Mapping[str, str] = {"dgx": "nccl", "pairwise_nvlink": "nccl-pairwise"}


def read_vidur(path: Path, device: str | None, library: str | None) -> Iterator[MeasuredSet]:
    """One unchecked set a device. library: what to call the kernels, "vllm" unless given (its torch layers)."""
    root = next((path / below for below in ("data/profiling", "profiling") if (path / below).is_dir()), path)
    if not root.is_dir():
        raise InputError(path, "is no folder", "Vidur's repository or its data/profiling")
    networks = {folder: folder.name.partition("_") for folder in sorted(root.glob("network/*")) if folder.is_dir()}
    found = {folder.name for folder in root.glob("compute/*") if folder.is_dir()} | {n[0] for n in networks.values()}
    for folder, name in choose_folders(found, NAMES, device, path).items():
        collectives = [
            samples
            for network, (owner, _, topology) in networks.items()
            if owner == folder
            for samples in _network(network, LIBRARIES.get(topology, f"nccl-{topology}"))
        ]
        yield MeasuredSet(
            device=name,
            library=library or "vllm",
            version="vidur",
            source="microsoft/vidur profiling data",
            licence="MIT",
            tables=(*read_layers(root / "compute" / folder), *_attention(root / "compute" / folder)),
            collectives=tuple(collectives),
        )


def _attention(folder: Path) -> Iterator[Measurements]:
    for path in sorted([*folder.glob("*/*/attention.csv"), *folder.glob("*/*/attention.csv.gz")]):
        yield from read_attention(path, f"vidur {folder.name} {path.parts[-2]} attention", cache_holds_chunk=False)


def _network(folder: Path, library: str) -> Iterator[Samples]:
    for kind in ("all_reduce", "send_recv"):
        for path in sorted([*folder.glob(f"{kind}.csv"), *folder.glob(f"{kind}.csv.gz")]):
            yield from read_collectives(path, vidur_key(kind, 1, library), vidur_point)
