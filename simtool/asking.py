"""From a scenario to what the library takes: a Workload, a Question, a Plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from simtool.adjusting import adjusted, offloads_of, overlaps_of
from simtool.errors import InputError
from simtool.hardware.device import Device, load_device
from simtool.hardware.own_cluster import own_cluster
from simtool.hardware.own_profiles import profile_files
from simtool.metrics import Slo
from simtool.models.architecture import ModelArchitecture
from simtool.models.config import load_architecture
from simtool.offloads import AUTO_OFFLOAD
from simtool.plan import Plan, Pool, Scheduler
from simtool.planners.question import Question, Space
from simtool.scenario import EngineSection, Scenario, WorkloadSection
from simtool.simulator.cpu_engine import scheduler_on
from simtool.traces import (
    Sessions,
    SharedPrefixes,
    first_requests,
    fit_context,
    mean_rate,
    read_trace,
    retime,
    scale_to_rate,
    subsample,
    synthesise,
    time_scale,
    with_samples,
    with_warmup,
)
from simtool.units import GIB
from simtool.workload import Workload

_DEFAULT_PROMPTS = 1000  # vllm bench serve
_SYNTHETIC_ONLY = ("input_len", "output_len", "random_range_ratio", "prefix_len", "num_prefixes", "turns", "think_s")


def workload_of(section: WorkloadSection, max_model_len: int = 0) -> Workload:
    """The requests that the section states. max_model_len > 0: longer ones are refused, dropped or clipped as it says.

    Raises InputError.
    """
    rng = np.random.default_rng(section.seed)
    workload = _from_trace(section, rng) if section.trace else _synthetic(section, rng)
    if max_model_len:
        policy = section.long_requests
        if policy == "auto":
            open_tail = any(text.startswith("lognormal") for text in (section.input_len, section.output_len))
            policy = "clip" if open_tail and not section.trace else "error"
        workload = _fitted(workload, policy, max_model_len)
    if section.warmup_requests:
        workload = with_warmup(workload, requests=section.warmup_requests)
    return replace(with_samples(workload, section.n), expert_routing=section.expert_routing)


def workload_for(plan: Plan, scenario: Scenario) -> Workload:
    """The scenario's requests for a plan: checked against the context of the plan's model."""
    limits = [pool.scheduler.max_model_len for pool in plan.pools if pool.scheduler.max_model_len]
    longest = load_architecture(plan.model).max_position_embeddings
    return workload_of(scenario.workload, min([longest, *limits]))


def slo_of(scenario: Scenario) -> Slo:
    """The limits in seconds."""
    slo = scenario.slo
    return Slo(ttft_s=slo.ttft_ms / 1e3, tpot_s=slo.tpot_ms / 1e3, e2e_s=slo.e2e_ms / 1e3, attainment=slo.attainment)


def question_of(scenario: Scenario) -> Question:
    """What `plan` asks the planner. Raises InputError for a model, cluster or workload that makes no sense."""
    require(scenario.model, "model", "name one, or the path of a config.json; `simtool models` lists names")
    require(scenario.devices, "devices", "say what there is, e.g. --devices 8xh200; `simtool hardware` lists devices")
    architecture = load_architecture(scenario.model)
    profiles, engine = profile_files(*scenario.profiles), scenario.engine
    cluster = own_cluster(scenario.devices, profiles)
    return Question(
        model=model_path(scenario.model),
        devices=scenario.devices,
        workload=workload_of(scenario.workload, context_limit(architecture, engine)),
        objective=scenario.objective,
        slo=slo_of(scenario),
        kernel_library=scenario.kernel_library,
        profiles=profiles,
        space=space_of(engine, cluster.devices),
        gpu_memory_utilization=engine.gpu_memory_utilization,
        prefix_caching=engine.enable_prefix_caching,
        num_gpu_blocks=engine.num_gpu_blocks_override,
        block_size=engine.block_size,
        scheduler=scheduler_on(fixed_scheduler(engine), cluster.types),
        price_per_hour=known_prices(scenario, cluster.types),
        seed=scenario.workload.seed,
    )


def known_prices(scenario: Scenario, devices: Sequence[Device] = ()) -> dict[str, float]:
    """The prices asked for. Raises InputError for a device neither in the catalogue nor among `devices`."""
    for device in scenario.price_per_hour:
        load_device(device, devices)
    return dict(scenario.price_per_hour)


def fixed_scheduler(engine: EngineSection) -> Scheduler:
    """The scheduler knobs that a search does not choose."""
    return Scheduler(
        policy=engine.scheduling_policy,
        max_model_len=engine.max_model_len,
        cuda_graphs=not engine.enforce_eager,
        async_scheduling=engine.async_scheduling,
    )


def space_of(engine: EngineSection, devices: int) -> Space:
    """The choices that the section leaves open."""
    ep = engine.expert_parallel_size
    if engine.enable_expert_parallel and not ep:
        ep = tuple(range(2, devices + 1))
    free = Space()
    return Space(
        devices=engine.num_devices,
        replicas=engine.replicas,
        tp=engine.tensor_parallel_size,
        pp=engine.pipeline_parallel_size,
        dp=engine.data_parallel_size,
        ep=ep,
        all2all_backend=engine.all2all_backend,
        weight_dtype=engine.weight_dtype,
        kv_dtype=engine.kv_cache_dtype,
        max_num_seqs=engine.max_num_seqs or free.max_num_seqs,
        max_num_batched_tokens=engine.max_num_batched_tokens or free.max_num_batched_tokens,
        scheduling=engine.scheduling,
        overlap=overlaps_of(engine),
        offload=offloads_of(engine) or free.offload,
        offload_auto=AUTO_OFFLOAD in engine.offload,
        router=engine.router,
    )


def plan_of(scenario: Scenario) -> Plan:
    """The one plan that a scenario without choices states, for `simulate` without a plan file."""
    require(scenario.model, "model", "give a plan file, or --model and --devices")
    require(scenario.devices, "devices", "give a plan file, or --model and --devices")
    device = own_cluster(scenario.devices, profile_files(*scenario.profiles)).groups[0].device
    pool = Pool(device=device.name, scheduler=scheduler_on(default_scheduler(device), [device]))
    plan = Plan(model=model_path(scenario.model), cluster=scenario.devices, pools=(pool,))
    return adjusted(replace(plan, kernel_library=scenario.kernel_library), scenario)


def default_scheduler(device: Device) -> Scheduler:
    """vLLM's own defaults for `vllm serve` (0.19, `EngineArgs.get_batch_defaults`): more on large GPUs, A100 apart."""
    if device.kind == "cpu" or device.hbm_bytes < 70 * GIB or device.name.startswith("a100"):
        return Scheduler()
    return Scheduler(max_num_seqs=1024, max_num_batched_tokens=8192)


def context_limit(architecture: ModelArchitecture, engine: EngineSection) -> int:
    """The longest context: the model's own, or the smaller one asked for."""
    return engine.max_model_len or architecture.max_position_embeddings


def require(value: str, name: str, hint: str) -> None:
    """Raise InputError where a needed key is absent."""
    if not value:
        raise InputError(name, "is missing", hint)


def model_path(model: str) -> str:
    """A path made absolute, so that the plan file works from any folder; a catalogue name as it is."""
    return str(Path(model).resolve()) if Path(model).exists() else model


def _from_trace(section: WorkloadSection, rng: np.random.Generator) -> Workload:
    """The trace, thinned, cut and retimed."""
    misplaced = [name for name in _SYNTHETIC_ONLY if name in section.model_fields_set]
    if misplaced:
        rule = f"{', '.join(misplaced)} would shape synthetic requests, and a trace was given"
        raise InputError("workload", rule, "leave out the trace or those keys")
    workload = read_trace(section.trace, section.trace_format)
    if section.sample < 1:
        workload = subsample(workload, section.sample, rng)
    if section.num_prompts:
        workload = first_requests(workload, section.num_prompts)
    if section.time_scale != 1:
        workload = time_scale(workload, section.time_scale)
    if section.request_rate is not None:
        if "burstiness" in section.model_fields_set or not np.isfinite(mean_rate(workload)):
            workload = retime(workload, section.request_rate, section.burstiness, rng)
        else:
            workload = scale_to_rate(workload, section.request_rate)
    if section.max_concurrency:
        keep = section.request_rate is not None  # else a closed loop, which sends when a request finishes
        arrival_s = workload.arrival_s if keep else np.zeros(workload.num_requests)
        workload = replace(workload, max_concurrency=section.max_concurrency, arrival_s=arrival_s)
    return workload


def _synthetic(section: WorkloadSection, rng: np.random.Generator) -> Workload:
    """Requests from lengths and an arrival process."""
    prefixes = sessions = None
    if section.prefix_len:
        prefixes = SharedPrefixes(count=section.num_prefixes, tokens=section.prefix_len)
    if section.turns > 1:
        sessions = Sessions(turns=section.turns, think_s=section.think_s)
    return synthesise(
        num_requests=_DEFAULT_PROMPTS if section.num_prompts is None else section.num_prompts,
        input_len=section.input_len,
        output_len=section.output_len,
        rng=rng,
        request_rate=float("inf") if section.request_rate is None else section.request_rate,
        burstiness=section.burstiness,
        max_concurrency=section.max_concurrency,
        random_range_ratio=section.random_range_ratio,
        prefixes=prefixes,
        sessions=sessions,
    )


def _fitted(workload: Workload, policy: str, max_model_len: int) -> Workload:
    """Requests beyond the context refused ("error"), dropped or clipped."""
    total = workload.input_tokens.astype(np.int64) + workload.output_tokens
    worst = int(np.argmax(total))
    if total[worst] <= max_model_len:
        return workload
    match policy:
        case "drop" | "clip":
            return fit_context(workload, max_model_len, policy)
    beyond = int(np.count_nonzero(total > max_model_len))
    rule = (
        f"request {worst} asks for {workload.input_tokens[worst]:,} + {workload.output_tokens[worst]:,} tokens and the "
        f"context holds {max_model_len:,} ({beyond:,} of {workload.num_requests:,} requests are too long)"
    )
    raise InputError("workload", rule, "--long-requests drop leaves them out, --long-requests clip shortens them")
