"""Results on disk: npz columns, saved and loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.files import output_file
from simtool.metrics import Result
from simtool.npz_file import read_npz, whole_numbers
from simtool.offload_use import STALL_CAUSES, OffloadUse

F8 = NDArray[np.float64]
I4 = NDArray[np.int32]

ITL_BIN_RATIO = 1.005  # width of a histogram bin: 0.5%
_FORMAT = 1
_COLUMNS = {
    "sent_s": np.float64,
    "scheduled_s": np.float64,
    "first_token_s": np.float64,
    "finish_s": np.float64,
    "input_tokens": np.int32,
    "output_tokens": np.int32,
    "cached_tokens": np.int32,
    "replica": np.int32,
    "preemptions": np.int32,
}
_COUNTS = ("num_steps", "devices", "warmup_requests")
_SCALARS = ("energy_j", "busy_s", *_COUNTS)
_OFFLOAD = "offload_"
_OFFLOAD_COLUMNS = {name: np.float64 if name.endswith("_s") else np.int64 for name in OffloadUse.__dataclass_fields__}
_DAMAGED = "the file may be damaged"


def save_requests(result: Result, path: str | Path) -> None:
    """Write all of a Result as an npz of plain columns (no pickle), built aside and renamed. Raises InputError."""
    arrays: dict[str, NDArray[Any]] = {name: getattr(result, name) for name in _COLUMNS}
    arrays |= {"itl_bins": result.itl_bins, "itl_counts": result.itl_counts}
    arrays |= {f"step_{name}": column for name, column in result.steps.items()}
    arrays |= {name: np.asarray(getattr(result, name), np.float64) for name in _SCALARS}
    if result.offload is not None:
        arrays |= {f"{_OFFLOAD}{name}": getattr(result.offload, name) for name in _OFFLOAD_COLUMNS}
    arrays |= {"kv_blocks": np.asarray(result.kv_blocks, np.int64), "simtool_result": np.asarray(_FORMAT)}
    with output_file(Path(path)) as building, building.open("wb") as out:
        np.savez_compressed(out, allow_pickle=False, **arrays)


def load_result(path: str | Path) -> Result:
    """The Result that save_requests wrote. Raises InputError when the file is missing, damaged or something else."""
    arrays = read_npz(Path(path), kind="requests file of simtool", hint="give a requests.npz that simtool wrote")
    _check(Path(path), arrays)
    scalars = {name: arrays[name].item() for name in _SCALARS}
    steps = {name.removeprefix("step_"): column for name, column in arrays.items() if name.startswith("step_")}
    offload = {name.removeprefix(_OFFLOAD): column for name, column in arrays.items() if name.startswith(_OFFLOAD)}
    return Result(
        **{name: arrays[name].astype(dtype, copy=False) for name, dtype in _COLUMNS.items()},
        itl_bins=arrays["itl_bins"].astype(np.float64, copy=False),
        itl_counts=arrays["itl_counts"].astype(np.float64, copy=False),
        steps={name: column.astype(np.float64, copy=False) for name, column in steps.items()},
        kv_blocks=tuple(int(blocks) for blocks in arrays["kv_blocks"].tolist()),
        energy_j=scalars["energy_j"],
        busy_s=scalars["busy_s"],
        num_steps=int(scalars["num_steps"]),
        devices=int(scalars["devices"]),
        warmup_requests=int(scalars["warmup_requests"]),
        offload=_offload_use(Path(path), offload) if offload else None,
    )


def _offload_use(path: Path, columns: Mapping[str, NDArray[Any]]) -> OffloadUse:
    """The columns as an OffloadUse. Raises InputError unless they are all there and fit together."""
    steps, layers = len(columns.get("start_s", ())), len(columns.get("layer_needed", ()))
    shapes: dict[str, tuple[int, ...]] = {
        name: (layers,) if name.startswith("layer_") else (steps,) for name in _OFFLOAD_COLUMNS
    }
    shapes["stall_s"] = (steps, len(STALL_CAUSES))
    if {name: column.shape for name, column in columns.items()} != shapes:
        raise InputError(str(path), "its columns of expert offload do not fit each other", _DAMAGED)
    typed: dict[str, Any] = {name: columns[name].astype(dtype) for name, dtype in _OFFLOAD_COLUMNS.items()}
    return OffloadUse(**typed)


def _check(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raise InputError unless all arrays are there, with shapes that fit together and counts that are counts."""
    needed = {*_COLUMNS, *_SCALARS, "itl_bins", "itl_counts", "kv_blocks", "simtool_result"}
    missing = sorted(needed - arrays.keys())
    if missing:
        raise InputError(path, f"has no {missing[0]}", "give a requests.npz that simtool wrote")
    rows = {arrays[name].shape for name in _COLUMNS}
    if len(rows) != 1 or len(next(iter(rows))) != 1 or any(arrays[name].ndim for name in _SCALARS):
        raise InputError(path, f"its columns have different lengths ({sorted(rows)})", _DAMAGED)
    flat = [name for name in arrays if (name.startswith("step_") or name == "kv_blocks") and arrays[name].ndim != 1]
    if flat:
        raise InputError(path, f"its {flat[0]} is no list", _DAMAGED)
    for name in (*(name for name, dtype in _COLUMNS.items() if dtype is np.int32), "kv_blocks", *_COUNTS):
        whole_numbers(path, name, arrays[name], least=0, most=2**31 - 1)
    bins, counts = arrays["itl_bins"], arrays["itl_counts"]
    if bins.ndim != 1 or counts.ndim != 1 or (len(bins) != len(counts) + 1 and len(bins) + len(counts)):
        raise InputError(path, "its ITL histogram needs one more edge than counts", _DAMAGED)
    if not (
        np.isfinite(bins).all() and (np.diff(bins) > 0).all() and np.isfinite(counts).all() and (counts >= 0).all()
    ):
        raise InputError(path, "its ITL histogram has edges or counts that are none", _DAMAGED)


def itl_histogram(gaps_s: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(edges [b+1], counts [b]) of gaps in bins 0.5% wide; gaps below a microsecond fall into the first bin."""
    gaps_s = np.maximum(gaps_s, 1e-6)
    if not len(gaps_s):
        return np.array([0.0, 1e-6]), np.zeros(1)
    low, high = math.log(float(gaps_s.min())), math.log(float(gaps_s.max()))
    bins = max(1, math.ceil((high - low) / math.log(ITL_BIN_RATIO)) + 1)
    edges: NDArray[np.float64] = math.exp(low) * ITL_BIN_RATIO ** (np.arange(bins + 1, dtype=np.float64) - 0.5)
    return edges, np.histogram(gaps_s, edges)[0].astype(np.float64)
