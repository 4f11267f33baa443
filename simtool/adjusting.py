"""A plan with what a scenario sets in place of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from simtool.errors import InputError
from simtool.hardware.own_profiles import profile_files
from simtool.offloads import AUTO_OFFLOAD, parse_offload
from simtool.overlaps import STOCK
from simtool.plan import ExpertOffload, KvPolicy, Overlap, Parallel, Plan, Scheduler
from simtool.scenario import EngineSection, Scenario


def adjusted(plan: Plan, scenario: Scenario) -> Plan:
    """The plan with every engine key, library and profile that the scenario sets in place of its own, in all pools."""
    engine = scenario.engine
    given = {name: _single(name, getattr(engine, name)) for name in engine.model_fields_set}
    pools = tuple(
        replace(
            pool,
            **_renamed(given, {"replicas": "replicas"}),
            parallel=_parallel(pool.parallel, given),
            scheduler=_scheduler(pool.scheduler, given),
            kv=_kv(pool.kv, given),
            overlap=_overlap(pool.overlap, given),
            offload=_offload(pool.offload, given),
        )
        for pool in plan.pools
    )
    changed = _renamed(given, {"weight_dtype": "weight_dtype", "router": "router"})
    if "kernel_library" in scenario.model_fields_set:
        changed["kernel_library"] = scenario.kernel_library
    if "profiles" in scenario.model_fields_set:
        changed["profiles"] = profile_files(*scenario.profiles)
    return replace(plan, pools=pools, **changed)


def overlaps_of(engine: EngineSection) -> tuple[Overlap, ...]:
    """The overlaps that the section names, each with its token thresholds."""
    given = engine.model_dump(include=set(_THRESHOLDS))
    return tuple(_overlap(Overlap(), {**given, "overlap": name}) for name in engine.overlap)


def offloads_of(engine: EngineSection) -> tuple[ExpertOffload, ...]:
    """The offloads that the section names, without "auto"."""
    return tuple(parse_offload(text) for text in engine.offload if text != AUTO_OFFLOAD)


def _offload(offload: ExpertOffload, given: Mapping[str, Any]) -> ExpertOffload:
    if given.get("offload") == AUTO_OFFLOAD:
        raise InputError("engine.offload auto", "is for `simtool plan`, which chooses", "--offload lru,slots=4")
    return parse_offload(given["offload"]) if "offload" in given else offload


def _single(name: str, value: Any) -> Any:
    """The one value of a key that may be a list."""
    if not isinstance(value, tuple):
        return value
    if len(value) != 1:
        raise InputError(f"engine.{name}", f"has {len(value)} values, and a simulated plan has one", "give one value")
    return value[0]


def _renamed(given: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The given values under the names of a plan's fields."""
    return {field: given[key] for key, field in names.items() if key in given}


def _parallel(parallel: Parallel, given: Mapping[str, Any]) -> Parallel:
    names = {"tensor_parallel_size": "tp", "pipeline_parallel_size": "pp", "data_parallel_size": "dp"}
    changed = replace(
        parallel, **_renamed(given, {**names, "expert_parallel_size": "ep", "all2all_backend": "all2all_backend"})
    )
    if given.get("enable_expert_parallel") and "expert_parallel_size" not in given:
        changed = replace(changed, ep=changed.tp * changed.dp)
    return replace(changed, layers_per_stage=()) if changed.pp != parallel.pp else changed


def _scheduler(scheduler: Scheduler, given: Mapping[str, Any]) -> Scheduler:
    same = ("scheduling", "max_num_seqs", "max_num_batched_tokens", "max_model_len", "async_scheduling")
    changed = _renamed(given, {**{name: name for name in same}, "scheduling_policy": "policy"})
    if "enforce_eager" in given:
        changed["cuda_graphs"] = not given["enforce_eager"]
    return replace(scheduler, **changed)


def _kv(kv: KvPolicy, given: Mapping[str, Any]) -> KvPolicy:
    names = {"block_size": "block_size", "gpu_memory_utilization": "gpu_memory_utilization", "kv_cache_dtype": "dtype"}
    more = {"enable_prefix_caching": "prefix_caching", "num_gpu_blocks_override": "num_gpu_blocks"}
    return replace(kv, **_renamed(given, names | more))


_THRESHOLDS = {"dbo_decode_token_threshold": "min_tokens", "dbo_prefill_token_threshold": "min_prefill_tokens"}


def _overlap(overlap: Overlap, given: Mapping[str, Any]) -> Overlap:
    kept = {name: getattr(overlap, name) for name in _THRESHOLDS.values()}
    chosen = replace(STOCK[given["overlap"]], **kept) if "overlap" in given else overlap
    return replace(chosen, **_renamed(given, _THRESHOLDS))
