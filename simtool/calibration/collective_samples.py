"""Samples: measured collectives, read from tables that others published."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError

Array = NDArray[np.float64]
Row = dict[str, str]

_SYSTEM = {"h200": "h200_sxm", "a100-80g": "a100_sxm", "l40s": "l40s"}
_NCCL_KIND = {
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "alltoall": "all_to_all",
}
_BACKEND = {
    "vllm_graph": "vllm",
    "vllm_eager": "vllm-eager",
    "sglang_graph": "sglang",
    "sglang_eager": "sglang-eager",
    "": "trtllm",
}
FIVE_KINDS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv")
ELEMENT_BYTES = 2.0  # the tables count elements of half and bfloat16
DEEPEP_RANKS = 8  # one node of 8, as the tables' node_num = 1
FP8_WITH_SCALES = 1.0 + 4.0 / 128.0  # DeepEP dispatches fp8 with one fp32 scale for 128 elements
DEEPEP_SMS = "20"  # DeepEP's default number of SMs for normal kernels


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Measured (size_bytes, seconds) of one collective, one library, one rank count. Arrays of shape [n]."""

    kind: str
    library: str
    ranks: int
    size_bytes: Array
    seconds: Array
    source: str


def read_samples(data: Path, device: str) -> Iterator[Samples]:
    """All measurements of `device` that curves are fitted to."""
    if device not in _SYSTEM:
        yield from apex_samples(data, "V100-PCIE-16GB", nodes="1", kinds=FIVE_KINDS)
        return
    folder = data / "aiconfigurator" / "kernels" / _SYSTEM[device]
    if not folder.is_dir():
        raise InputError(data, f"has no folder aiconfigurator/kernels/{_SYSTEM[device]}", "give the data folder")
    for path in sorted(folder.glob("nccl_perf__*.csv.gz")):
        yield from _grouped(path, _nccl_key, _nccl_point)
    for path in sorted(folder.glob("custom_allreduce_perf__*.csv.gz")):
        yield from _grouped(path, _custom_key, _nccl_point)
    for path in sorted(folder.glob("wideep_deepep_*.csv.gz")):
        yield from _deepep(path)
    yield from send_recv_samples(data, device)


def send_recv_samples(data: Path, device: str) -> Iterator[Samples]:
    """Point-to-point times inside a node: apex_plus for H200, vidur for A100; L40S from its 2-rank all-to-all.

    A 2-rank all-to-all of 2b bytes has each rank send b to the other: an upper estimate of send_recv(b).
    """
    if device == "h200":
        yield from apex_samples(data, "H200-SXM-141GB", nodes="1", kinds=("send_recv",))
    elif device == "a100-80g":
        yield from vidur_samples(data, "send_recv", nodes=1)
    else:
        folder = data / "aiconfigurator" / "kernels" / _SYSTEM[device]
        for path in sorted(folder.glob("nccl_perf__*.csv.gz")):
            for samples in _grouped(path, _nccl_key, _nccl_point):
                if (samples.kind, samples.ranks) == ("all_to_all", 2):
                    yield Samples(
                        kind="send_recv",
                        library="nccl",
                        ranks=2,
                        size_bytes=samples.size_bytes / 2,
                        seconds=samples.seconds,
                        source=samples.source + " (2-rank all_to_all of twice the size)",
                    )


def apex_samples(data: Path, gpu: str, nodes: str, kinds: Iterable[str]) -> Iterator[Samples]:
    """apex_plus profile/comm tables (microseconds, KiB) of `gpu` on `nodes` nodes; library "nccl"."""
    names = {"send_recv": "sendrecv", "all_to_all": "alltoall"}
    for kind in kinds:
        path = data / "apex_plus" / "profile" / "comm" / gpu / f"{names.get(kind, kind)}.csv"
        if not path.is_file():
            raise InputError(path, "is missing", "give the data folder")

        def key(row: Row, kind: str = kind) -> tuple[str, str, int] | None:
            if row["num_nodes"] != nodes or row["dtype"] != "half" or float(row["size(kb)"]) < 1:
                return None
            return kind, "nccl", int(nodes) * int(row["num_gpus_per_node"])

        yield from _grouped(path, key, lambda row: (float(row["size(kb)"]) * 1024, float(row["time(us)"]) * 1e-6))


def vidur_samples(data: Path, kind: str, nodes: int) -> Iterator[Samples]:
    """vidur's DGX A100 tables (milliseconds, bytes) of `kind` over `nodes` nodes of equally many devices."""
    path = data / "vidur" / "data" / "profiling" / "network" / "a100_dgx" / f"{kind}.csv.gz"

    def key(row: Row) -> tuple[str, str, int] | None:
        inside = int(row["num_workers"]) == nodes * int(row["devices_per_node"])
        return (kind, "nccl", int(row["num_workers"])) if inside else None

    yield from _grouped(path, key, _vidur_point)


def _nccl_key(row: Row) -> tuple[str, str, int] | None:
    return (_NCCL_KIND[row["op_name"]], "nccl", int(row["num_gpus"])) if row["nccl_dtype"] == "half" else None


def _custom_key(row: Row) -> tuple[str, str, int]:
    return "all_reduce", _BACKEND[row.get("backend", "")], int(row["num_gpus"])


def _nccl_point(row: Row) -> tuple[float, float]:
    return float(row["message_size"]) * ELEMENT_BYTES, float(row["latency"]) * 1e-3


def _vidur_point(row: Row) -> tuple[float, float]:
    # Times are rounded to a microsecond, so a zero means less than one.
    return float(row["size"]), max(float(row[f"time_stats.{row['collective']}.median"]) * 1e-3, 1e-6)


def _deepep(path: Path) -> Iterator[Samples]:
    """DeepEP dispatch and combine. Bytes a rank sends: low latency sends a copy an expert, normal one a destination."""
    low_latency = "_ll_" in path.name
    for kind in ("dispatch", "combine"):
        column = f"{kind}_avg_t_us" if low_latency else f"{kind}_transmit_us"

        def key(row: Row, kind: str = kind) -> tuple[str, str, int] | None:
            if low_latency:
                return kind, "deepep_ll", DEEPEP_RANKS
            return (kind, "deepep", DEEPEP_RANKS) if row[f"{kind}_sms"] == DEEPEP_SMS else None

        def point(row: Row, kind: str = kind, column: str = column) -> tuple[float, float]:
            top_k = int(row["num_topk"])
            copies = top_k if low_latency else distinct_ranks(top_k, DEEPEP_RANKS)
            width = FP8_WITH_SCALES if kind == "dispatch" else ELEMENT_BYTES
            size = float(row["num_token"]) * copies * float(row["hidden_size"]) * width
            return size, float(row[column]) * 1e-6

        yield from _grouped(path, key, point)


def distinct_ranks(top_k: int, ranks: int) -> float:
    """Expected number of different ranks among `top_k` evenly spread experts."""
    return ranks * (1.0 - (1.0 - 1.0 / ranks) ** top_k)


def _grouped(
    path: Path,
    key: Callable[[Row], tuple[str, str, int] | None],
    point: Callable[[Row], tuple[float, float]],
) -> Iterator[Samples]:
    groups: dict[tuple[str, str, int], list[tuple[float, float]]] = {}
    for row in read_rows(path):
        name = key(row)
        if name is not None:
            groups.setdefault(name, []).append(point(row))
    for (kind, library, ranks), points in sorted(groups.items()):
        columns = np.asarray(points, dtype=np.float64)
        if not (np.isfinite(columns).all() and (columns > 0).all()):
            raise InputError(path, "holds sizes or times that are not positive numbers", "check the file")
        yield Samples(
            kind=kind,
            library=library,
            ranks=ranks,
            size_bytes=columns[:, 0],
            seconds=columns[:, 1],
            source=f"{path.parent.name}/{path.name}",
        )


def read_rows(path: Path) -> list[Row]:
    """Rows of a CSV file, gzipped or not."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(path, f"cannot be read: {error}", "check the data folder") from None
