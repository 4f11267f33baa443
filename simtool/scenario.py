"""Scenario: one TOML file, or the same keys as flags, that serves `plan`, `simulate` and `sweep`.

Unknown keys are errors. Units are in the names; SLO limits are milliseconds, as in vLLM's benchmark.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from simtool.errors import InputError
from simtool.files import read_text
from simtool.models.routing.source_text import is_trace_file
from simtool.offloads import AUTO_OFFLOAD, parse_offload
from simtool.overlaps import STOCK
from simtool.plan import All2AllBackend, KernelLibrary, Router, Scheduling
from simtool.plan_file import validation_rule
from simtool.planners.question import Objective

_MAX_BYTES = 2**20


def _as_list(value: object) -> object:
    """One value or "1,2,4" where a list is wanted."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
        return [int(part) if part.lstrip("-").isdigit() else part for part in value]
    return [value] if isinstance(value, int) else value


def _as_paths(value: object) -> object:
    """One path, or "a.json,b.json", where a list is wanted."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _as_choices(value: object) -> object:
    """One offload, or "lru,slots=4;static-cpu,slots=4", where a list is wanted: an offload has commas of its own."""
    return [part.strip() for part in value.split(";") if part.strip()] if isinstance(value, str) else value


def _offload_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Offloads as `parse_offload` reads them, or "auto"."""
    for name in names:
        if name != AUTO_OFFLOAD:
            try:
                parse_offload(name)
            except InputError as error:
                raise ValueError(str(error)) from error
    return names


def _stock_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Overlaps by name."""
    for name in names:
        if name not in STOCK:
            raise ValueError(f"{name!r} is no overlap; one of {', '.join(STOCK)}")
    return names


Positive = Annotated[int, Field(ge=1)]
Counts = Annotated[tuple[Positive, ...], BeforeValidator(_as_list)]
Names = Annotated[tuple[str, ...], BeforeValidator(_as_list)]
Paths = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_as_paths)]
Length = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int) else value)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class WorkloadSection(_Section):
    """Where requests come from: a trace, or lengths and an arrival process. Names are `vllm bench serve`'s.

    num_prompts absent: the whole trace, or 1000 synthetic requests. request_rate (requests a second): absent, a trace
    keeps its own times and synthetic requests come at once. input_len, output_len: "512", "lognormal:MEDIAN:SIGMA", and
    the other forms that docs/how-to.md lists. random_range_ratio: as in vLLM's benchmark. n: samples of each prompt, as
    `vllm bench throughput --n`. long_requests: what becomes of requests beyond the model's context (auto: lognormal
    tails are clipped, anything else is an error). expert_routing: where tokens go in offloaded experts,
    "zipf:1.1,locality=0.4" and the like, or a recorded trace (docs/routing.md).
    """

    trace: str = ""
    trace_format: str = "auto"
    num_prompts: Positive | None = None
    request_rate: Annotated[float, Field(gt=0)] | None = None
    burstiness: Annotated[float, Field(gt=0)] = 1.0
    max_concurrency: Annotated[int, Field(ge=0)] = 0
    input_len: Length = "1024"
    output_len: Length = "128"
    random_range_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    prefix_len: Annotated[int, Field(ge=0)] = 0
    num_prefixes: Positive = 1
    n: Positive = 1
    turns: Positive = 1
    think_s: Annotated[float, Field(ge=0)] = 0.0
    time_scale: Annotated[float, Field(gt=0)] = 1.0
    sample: Annotated[float, Field(gt=0, le=1)] = 1.0
    long_requests: Literal["auto", "error", "drop", "clip"] = "auto"
    warmup_requests: Annotated[int, Field(ge=0)] = 0
    expert_routing: str = ""
    seed: Annotated[int, Field(ge=0)] = 0


class SloSection(_Section):
    """Per-request limits in milliseconds (0: none) and the share of requests that must meet all of them."""

    ttft_ms: Annotated[float, Field(ge=0)] = 0.0
    tpot_ms: Annotated[float, Field(ge=0)] = 0.0
    e2e_ms: Annotated[float, Field(ge=0)] = 0.0
    attainment: Annotated[float, Field(gt=0, le=1)] = 0.99


class EngineSection(_Section):
    """The engine, in `vllm serve`'s words. For `plan` a list is a choice and an absent key is free.

    overlap: stock overlaps by name. dbo_*_token_threshold: steps of fewer tokens, of decodes alone and with prompts,
    run without it. offload: routed experts in host memory, "lru,slots=4" (docs/offload.md); "auto" (for `plan`): where
    the model does not fit otherwise.
    """

    tensor_parallel_size: Counts = ()
    pipeline_parallel_size: Counts = ()
    data_parallel_size: Counts = ()
    expert_parallel_size: Counts = ()
    enable_expert_parallel: bool = False
    all2all_backend: Annotated[tuple[All2AllBackend, ...], BeforeValidator(_as_list)] = ("allgather_reducescatter",)
    replicas: Counts = ()
    num_devices: Counts = ()
    weight_dtype: Names = ("auto",)
    kv_cache_dtype: Names = ("auto",)
    max_num_seqs: Counts = ()
    max_num_batched_tokens: Counts = ()
    scheduling: Annotated[tuple[Scheduling, ...], BeforeValidator(_as_list)] = ("chunked",)
    scheduling_policy: Literal["fcfs", "priority"] = "fcfs"
    router: Annotated[tuple[Router, ...], BeforeValidator(_as_list)] = ("round_robin",)
    max_model_len: Annotated[int, Field(ge=0)] = 0
    block_size: Positive = 16
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    num_gpu_blocks_override: Annotated[int, Field(ge=0)] = 0
    enable_prefix_caching: bool = False
    enforce_eager: bool = False
    async_scheduling: bool = True
    overlap: Annotated[Names, AfterValidator(_stock_names)] = ("none",)
    dbo_decode_token_threshold: Annotated[int, Field(ge=0)] = 0
    dbo_prefill_token_threshold: Annotated[int, Field(ge=0)] = 0
    offload: Annotated[tuple[str, ...], BeforeValidator(_as_choices), AfterValidator(_offload_names)] = ("none",)


class Scenario(_Section):
    """Everything one may ask. `price_per_hour`: dollars a device-hour by device, in place of the catalogue's.

    profiles: files of the user's own measurements, which price before the shipped ones.
    """

    model: str = ""
    devices: str = ""
    objective: Objective = "throughput-per-gpu"
    kernel_library: KernelLibrary = "vllm"
    profiles: Paths = ()
    workload: WorkloadSection = WorkloadSection()
    slo: SloSection = SloSection()
    engine: EngineSection = EngineSection()
    price_per_hour: dict[str, Annotated[float, Field(ge=0)]] = {}


def load_scenario(
    path: Path | None = None, *, values: Mapping[str, Any] | None = None, settings: Sequence[str] = ()
) -> Scenario:
    """The scenario of a TOML file, then `values` (dotted path -> value), then `settings` ("path=value") on top.

    Raises InputError that names every unknown key and every bad value. A relative trace, profile or model path
    in the file is relative to the file.
    """
    tree = _read(path) if path else {}
    for dotted, value in (values or {}).items():
        _put(tree, dotted, value)
    for setting in settings:
        dotted, equals, text = setting.partition("=")
        if not equals or not dotted:
            raise InputError(setting, "is not path=value", "for example --set workload.request_rate=4")
        _put(tree, dotted.strip(), _toml_value(text.strip()))
    try:
        return Scenario.model_validate(tree)
    except ValidationError as error:
        source = str(path) if path else "scenario"
        raise InputError(source, validation_rule(error), _hint(error)) from error


def _read(path: Path) -> dict[str, Any]:
    """The TOML file as a tree, its relative paths made relative to the working folder."""
    try:
        tree = tomllib.loads(read_text(path, kind="scenario TOML file", max_bytes=_MAX_BYTES))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(str(path), f"is not valid TOML: {error}", "see examples/chat.toml") from error
    workload = tree.get("workload")
    if isinstance(workload, dict) and isinstance(workload.get("trace"), str):
        workload["trace"] = str(path.parent / workload["trace"])
    if isinstance(workload, dict) and is_trace_file(str(workload.get("expert_routing", ""))):
        workload["expert_routing"] = str(path.parent / workload["expert_routing"])
    paths = _as_paths(tree.get("profiles"))
    if isinstance(paths, list):
        tree["profiles"] = [str(path.parent / part) if part and isinstance(part, str) else part for part in paths]
    if isinstance(tree.get("model"), str) and (path.parent / tree["model"]).exists():
        tree["model"] = str(path.parent / tree["model"])
    return tree


def _put(tree: dict[str, Any], dotted: str, value: object) -> None:
    """tree[a][b] = value for dotted "a.b"."""
    *folders, name = dotted.split(".")
    for folder in folders:
        tree = tree.setdefault(folder, {})
        if not isinstance(tree, dict):
            raise InputError(dotted, f"{folder} is a value and has no keys", "see docs/how-to.md for every key")
    tree[name] = value


def _toml_value(text: str) -> object:
    """The text as a TOML value, or as a plain string where it is none."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


def _hint(error: ValidationError) -> str:
    """The keys that exist where an unknown one was given."""
    for found in error.errors(include_url=False):
        if found["type"] == "extra_forbidden":
            return f"keys here: {', '.join(_keys_at(found['loc'][:-1]))}"
    return "see docs/how-to.md for every key and its unit"


def _keys_at(loc: tuple[int | str, ...]) -> list[str]:
    """The legal keys of the section at `loc`."""
    section: Any = Scenario
    for part in loc:
        section = section.model_fields[part].annotation
    return sorted(section.model_fields)
