"""Samples: measured collectives, read from tables that others published."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.measurements import Refusal
from simtool.errors import InputError

Array = NDArray[np.float64]
Row = dict[str, str]
Key = tuple[str, str, int]  # kind, library, ranks
Point = tuple[float, float]  # bytes, seconds

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
APEX_FILES = {kind: {"send_recv": "sendrecv", "all_to_all": "alltoall"}.get(kind, kind) for kind in FIVE_KINDS}
ELEMENT_BYTES = 2.0  # the tables count elements of half and bfloat16
DEEPEP_RANKS = 8  # one node of 8, as the tables' node_num = 1
FP8_WITH_SCALES = 1.0 + 4.0 / 128.0  # DeepEP dispatches fp8 with one fp32 scale for 128 elements
DEEPEP_SMS = "20"  # DeepEP's default number of SMs for normal kernels


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Measured (size_bytes, seconds) of one collective, one library, one rank count. Arrays of shape [n].

    lines: where each point stood in `source`, empty where that is not known.
    """

    kind: str
    library: str
    ranks: int
    size_bytes: Array
    seconds: Array
    source: str
    lines: tuple[int, ...] = ()
    refused: tuple[Refusal, ...] = ()


def read_samples(data: Path, device: str) -> Iterator[Samples]:
    """All measurements of `device` that curves are fitted to."""
    if device not in _SYSTEM:
        yield from apex_samples(data, "V100-PCIE-16GB", nodes="1", kinds=FIVE_KINDS)
        return
    folder = data / "aiconfigurator" / "kernels" / _SYSTEM[device]
    if not folder.is_dir():
        raise InputError(data, f"has no folder aiconfigurator/kernels/{_SYSTEM[device]}", "give the data folder")
    for path in sorted(folder.glob("nccl_perf__*.csv.gz")):
        yield from _grouped(path, nccl_key, nccl_point)
    for path in sorted(folder.glob("custom_allreduce_perf__*.csv.gz")):
        yield from _grouped(path, custom_key, nccl_point)
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
            for samples in _grouped(path, nccl_key, nccl_point):
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
    for kind in kinds:
        path = data / "apex_plus" / "profile" / "comm" / gpu / f"{APEX_FILES[kind]}.csv"
        if not path.is_file():
            raise InputError(path, "is missing", "give the data folder")

        yield from _grouped(path, apex_key(kind, nodes), apex_point)


def apex_key(kind: str, nodes: str) -> Callable[[Row], Key | None]:
    """(kind, library, ranks) of a row of an apex_plus table, if it is of half elements on `nodes` nodes."""

    def key(row: Row) -> Key | None:
        if row["num_nodes"] != nodes or row["dtype"] != "half" or float(row["size(kb)"]) < 1:
            return None
        return kind, "nccl", int(nodes) * int(row["num_gpus_per_node"])

    return key


def apex_point(row: Row) -> Point:
    """(bytes, seconds) of a row in KiB and microseconds."""
    return float(row["size(kb)"]) * 1024, float(row["time(us)"]) * 1e-6


def vidur_samples(data: Path, kind: str, nodes: int) -> Iterator[Samples]:
    """vidur's DGX A100 tables (milliseconds, bytes) of `kind` over `nodes` nodes of equally many devices."""
    path = data / "vidur" / "data" / "profiling" / "network" / "a100_dgx" / f"{kind}.csv.gz"

    yield from _grouped(path, vidur_key(kind, nodes), vidur_point)


def vidur_key(kind: str, nodes: int, library: str = "nccl") -> Callable[[Row], Key | None]:
    """(kind, library, ranks) of a row of Vidur's network tables, if it spans `nodes` full nodes."""

    def key(row: Row) -> Key | None:
        inside = int(row["num_workers"]) == nodes * int(row["devices_per_node"])
        return (kind, library, int(row["num_workers"])) if inside else None

    return key


def nccl_key(row: Row) -> Key | None:
    """(kind, library, ranks) of a row of nccl_perf."""
    return (_NCCL_KIND[row["op_name"]], "nccl", int(row["num_gpus"])) if row["nccl_dtype"] == "half" else None


def custom_key(row: Row) -> Key:
    """(kind, library, ranks) of a row of custom_allreduce_perf."""
    return "all_reduce", _BACKEND[row.get("backend", "")], int(row["num_gpus"])


def nccl_point(row: Row) -> Point:
    """(bytes, seconds) of both tables: message_size counts elements, latency milliseconds."""
    return float(row["message_size"]) * ELEMENT_BYTES, float(row["latency"]) * 1e-3


def vidur_point(row: Row) -> Point:
    """(bytes, seconds) of a row of Vidur's network tables."""
    # Times are rounded to a microsecond, so a zero means less than one.
    return float(row["size"]), max(float(row[f"time_stats.{row['collective']}.median"]) * 1e-3, 1e-6)


def _deepep(path: Path) -> Iterator[Samples]:
    for key, point in deepep_columns(low_latency="_ll_" in path.name):
        yield from _grouped(path, key, point)


def deepep_columns(low_latency: bool) -> Iterator[tuple[Callable[[Row], Key | None], Callable[[Row], Point]]]:
    """Key and point of DeepEP's dispatch and combine in a row (microseconds).

    Bytes a rank sends: low latency sends a copy an expert, normal one a destination.
    """
    for kind in ("dispatch", "combine"):
        column = f"{kind}_avg_t_us" if low_latency else f"{kind}_transmit_us"

        def key(row: Row, kind: str = kind) -> Key | None:
            if low_latency:
                return kind, "deepep_ll", DEEPEP_RANKS
            return (kind, "deepep", DEEPEP_RANKS) if row[f"{kind}_sms"] == DEEPEP_SMS else None

        def point(row: Row, kind: str = kind, column: str = column) -> Point:
            top_k = int(row["num_topk"])
            copies = top_k if low_latency else distinct_ranks(top_k, DEEPEP_RANKS)
            width = FP8_WITH_SCALES if kind == "dispatch" else ELEMENT_BYTES
            size = float(row["num_token"]) * copies * float(row["hidden_size"]) * width
            return size, float(row[column]) * 1e-6

        yield key, point


def distinct_ranks(top_k: int, ranks: int) -> float:
    """Expected number of different ranks among `top_k` evenly spread experts."""
    return ranks * (1.0 - (1.0 - 1.0 / ranks) ** top_k)


def _grouped(
    path: Path,
    key: Callable[[Row], Key | None],
    point: Callable[[Row], Point],
) -> Iterator[Samples]:
    groups: dict[Key, list[Point]] = {}
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
