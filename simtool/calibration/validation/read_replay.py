"""LLMServingSim's bench folders: requests.jsonl (seconds of each event inside vLLM) and meta.json (its engine)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simtool.calibration.validation.fields import counts, json_objects, numbers, part, whole
from simtool.calibration.validation.measurement import ClientColumns, Measurement, client_measurement

TOOL = "vLLM (LLMServingSim bench)"
REQUESTS = "requests.jsonl"
_MOST = dict.fromkeys(("max_num_seqs", "max_num_batched_tokens", "block_size", "tensor_parallel_size"), 2**20)
_TIMES = ("arrival_time", "queued_ts", "first_token_ts", "last_token_ts")


def read_replay(folder: Path) -> Measurement:
    """The run; latencies count from when the engine queued a request, as no client stood before it."""
    path = folder / REQUESTS
    rows = json_objects(path)
    source = str(folder)
    column = {name: numbers((row.get(name) for row in rows), name, path) for name in _TIMES}
    # arrival_time is wall clock, the rest monotonic; the smallest queueing delay ties them: no request waits before it
    shift = float((column["queued_ts"] - column["arrival_time"]).min())
    sent_s = column["arrival_time"]
    columns = ClientColumns(
        sent_s=sent_s,
        ttft_s=column["first_token_ts"] - sent_s - shift,
        e2e_s=column["last_token_ts"] - sent_s - shift,
        input_tokens=counts((row.get("input_toks") for row in rows), "input_toks", path),
        output_tokens=counts((row.get("output_toks") for row in rows), "output_toks", path),
    )
    return client_measurement(TOOL, source, columns, stated={}, engine=_engine(folder / "meta.json"))


def _engine(path: Path) -> dict[str, int | bool]:
    """Scenario keys of the engine, as far as the file states them; none without a file."""
    if not path.is_file():
        return {}
    document = json_objects(path)[0]
    found: dict[str, int | bool] = {}
    given = part(document, "engine_kwargs")
    same = {name: name for name in ("max_num_seqs", "max_num_batched_tokens", "max_model_len", "tensor_parallel_size")}
    _take(found, given, same, path)
    _take(
        found,
        part(document, "kv_cache"),
        {"num_gpu_blocks": "num_gpu_blocks_override", "block_size": "block_size"},
        path,
    )
    held = found.get("num_gpu_blocks_override", 0) * found.get("block_size", 16)
    if held and found.get("max_model_len", 0) > held:  # vLLM allows a limit that its blocks do not hold
        found["max_model_len"] = held
    return found


def _take(found: dict[str, int | bool], given: Mapping[str, Any], names: Mapping[str, str], path: Path) -> None:
    for theirs, ours in names.items():
        value = whole(given.get(theirs), theirs, path, most=_MOST.get(ours, 2**31 - 1))
        if value:
            found[ours] = value


def is_replay(path: Path) -> Path | None:
    """The folder of such a run: `path` itself or its `vllm`; None where there is none."""
    candidates: Sequence[Path] = (path, path / "vllm")
    return next((folder for folder in candidates if (folder / REQUESTS).is_file()), None)
