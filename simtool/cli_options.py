"""The flags of the commands: one row a flag, with vLLM's name and the scenario key that it sets."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from simtool.scenario import Scenario

_SLO_PAIR = re.compile(r"^(ttft|tpot|e2el?):[0-9.]+[a-z]*$")
_SLO_FLAGS = ("--slo", "--goodput")


@dataclass(frozen=True, slots=True)
class Flag:
    """`path`: the scenario key. `names`: as typed, aliases included."""

    path: str
    names: tuple[str, ...]
    kind: type
    help: str
    panel: str


def _rows(panel: str, *rows: tuple[str, str, type, str]) -> tuple[Flag, ...]:
    return tuple(Flag(path, tuple(names.split()), kind, help_, panel) for path, names, kind, help_ in rows)


QUESTION = _rows(
    "Question",
    ("devices", "--devices", str, "What there is: 8xh200, or 4xa100-80g+8xl4."),
    ("objective", "--objective", str, "throughput-per-gpu, goodput-per-gpu, throughput-per-dollar, latency, ttft, "
     "tpot, gpus, cost-per-token or energy-per-token."),
    ("kernel_library", "--kernel-library", str, "vllm, sglang, trtllm or torch."),
    ("profiles", "--profile", list[str], "Own measurements (a calibration's file), before the shipped. Repeatable."),
    ("slo", "--slo --goodput", str, "Limits in ms a request: ttft:1000,tpot:50 (also e2el)."),
    ("prices", "--price-per-hour", str, "Dollars a device-hour in place of the catalogue's: h200=3.5,l4=0.6."),
    ("slo.attainment", "--slo-attainment", float, "Share of requests that must meet every limit [0.99]."),
)  # fmt: skip

WORKLOAD = _rows(
    "Workload",
    ("workload.trace", "--trace", str, "Azure or BurstGPT CSV, Mooncake or own JSONL, ShareGPT or vLLM result JSON."),
    ("workload.trace_format", "--trace-format", str, "The trace's format, where its content does not tell [auto]."),
    ("workload.num_prompts", "--num-prompts", int, "Requests [all of a trace, or 1000]."),
    ("workload.request_rate", "--request-rate", float, "Requests a second [a trace's own times, or all at once]."),
    ("workload.burstiness", "--burstiness", float, "Gamma shape of arrivals: 1 is Poisson, below 1 burstier [1]."),
    ("workload.max_concurrency", "--max-concurrency", int, "Requests in flight: a closed loop [0: no limit]."),
    ("workload.input_len", "--input-len --random-input-len", str, "Prompt tokens: 1024, 1024*0.8..1, "
     "uniform:64:512, lognormal:512:0.9 or empirical:FILE [1024]."),
    ("workload.output_len", "--output-len --random-output-len", str, "Output tokens, in the same forms [128]."),
    ("workload.random_range_ratio", "--random-range-ratio", float, "r: lengths in [1-r, 1+r] x the length [0]."),
    ("workload.prefix_len", "--prefix-len --random-prefix-len", int, "Tokens of a shared prefix before each prompt."),
    ("workload.num_prefixes", "--num-prefixes", int, "How many different shared prefixes [1]."),
    ("workload.n", "--n", int, "Samples of each prompt, a request each, which share its full blocks [1]."),
    ("workload.turns", "--turns", int, "Turns a session: each turn's prompt holds all before it [1]."),
    ("workload.think_s", "--think-time", float, "Seconds between a turn's end and the next turn [0]."),
    ("workload.time_scale", "--time-scale", float, "Stretch the trace's time by this factor [1]."),
    ("workload.sample", "--sample", float, "Keep this random share of the trace's requests [1]."),
    ("workload.long_requests", "--long-requests", str, "If too long: error, drop, clip or auto [auto]."),
    ("workload.expert_routing", "--expert-routing", str, "Where tokens go in offloaded experts: uniform, zipf:1.1, "
     "mixtral-8x7b,locality=0.4, or a recorded trace [uniform]."),
    ("workload.warmup_requests", "--warmup-requests", int, "Simulate but do not count the first so many [0]."),
    ("workload.seed", "--seed", int, "Seed of everything random [0]."),
)  # fmt: skip

ENGINE = _rows(
    "Engine (for plan: pins the search; a comma list is a choice)",
    ("engine.tensor_parallel_size", "--tensor-parallel-size -tp", str, "Tensor parallel degree."),
    ("engine.pipeline_parallel_size", "--pipeline-parallel-size -pp", str, "Pipeline stages."),
    ("engine.data_parallel_size", "--data-parallel-size -dp", str, "Data-parallel attention ranks of one replica."),
    ("engine.expert_parallel_size", "--expert-parallel-size -ep", str, "Expert parallel degree."),
    ("engine.enable_expert_parallel", "--enable-expert-parallel", bool, "Experts spread over TP x DP."),
    ("engine.all2all_backend", "--all2all-backend", str, "How tokens of DP ranks reach experts: "
     "allgather_reducescatter, deepep_high_throughput or deepep_low_latency [allgather_reducescatter]."),
    ("engine.replicas", "--replicas", str, "Copies of the engine behind the router."),
    ("engine.num_devices", "--num-devices", str, "Devices to use in all, out of --devices."),
    ("engine.weight_dtype", "--weight-dtype --quantization", str, "auto, bf16, fp8, int8, int4, mxfp4, nvfp4 [auto]."),
    ("engine.kv_cache_dtype", "--kv-cache-dtype", str, "auto, bf16 or fp8 [auto]."),
    ("engine.max_num_seqs", "--max-num-seqs", str, "Sequences a step [vLLM's; plan: 256]."),
    ("engine.max_num_batched_tokens", "--max-num-batched-tokens", str, "Tokens a step [vLLM's; plan: 2048,8192]."),
    ("engine.scheduling", "--scheduling", str, "chunked, no_chunking, prefill_first or static [chunked]."),
    ("engine.scheduling_policy", "--scheduling-policy", str, "fcfs or priority [fcfs]."),
    ("engine.router", "--router", str, "round_robin, least_outstanding or prefix_aware [round_robin]."),
    ("engine.max_model_len", "--max-model-len", int, "Longest context [the model's]."),
    ("engine.block_size", "--block-size", int, "Tokens a KV block [16]."),
    ("engine.gpu_memory_utilization", "--gpu-memory-utilization", float, "Share of memory the engine takes [0.9]."),
    ("engine.num_gpu_blocks_override", "--num-gpu-blocks-override", int, "KV blocks, where they are known."),
    ("engine.enable_prefix_caching", "--enable-prefix-caching/--no-enable-prefix-caching", bool, "Prefix cache [off]."),
    ("engine.enforce_eager", "--enforce-eager", bool, "No CUDA graphs."),
    ("engine.overlap", "--overlap", str, "Kernels side by side: none, two-batch, nano, shared-experts, signalled, "
     "chunked-experts, fused; KV sent to a decode pool: kv-whole, kv-layers [none]."),
    ("engine.dbo_decode_token_threshold", "--dbo-decode-token-threshold", int, "Fewest decodes that overlap [0]."),
    ("engine.dbo_prefill_token_threshold", "--dbo-prefill-token-threshold", int, "The same with prompts [0]."),
    ("engine.offload", "--offload", str, "Experts in host memory: lru,slots=4, and other policies (docs/offload.md); "
     "plan takes a choice, lru,slots=4;lru,slots=2, and auto [none]."),
    ("engine.async_scheduling", "--async-scheduling/--no-async-scheduling", bool, "Plan a step ahead of the GPU [on]."),
)  # fmt: skip

Model = Annotated[str | None, typer.Argument(help="A catalogue name (`simtool models`) or the path of a config.json.")]
ScenarioFile = Annotated[Path | None, typer.Option("--scenario", help="TOML with these keys; flags override it.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="path=value, for any scenario key. Repeatable.")]
Out = Annotated[Path | None, typer.Option("--out", help="Write plan, result, requests, timeline and report here.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def with_flags(*groups: Sequence[Flag]) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give a command the flags of `groups`; those that were set reach it as `given`: scenario key -> value."""
    flags = {f"flag_{number}": flag for number, flag in enumerate(flag for group in groups for flag in group)}

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        def with_given(**values: Any) -> int:
            given = {flag.path: values.pop(name) for name, flag in flags.items()}
            return command(**values, given={path: value for path, value in given.items() if value is not None})

        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "given"]
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        parameters += [_parameter(name, flag) for name, flag in flags.items()]
        with_given.__signature__ = inspect.Signature(parameters, return_annotation=int)  # type: ignore[attr-defined]
        with_given.__annotations__ = {p.name: p.annotation for p in parameters}
        with_given.__name__, with_given.__doc__ = command.__name__, command.__doc__
        return with_given

    return decorate


def _parameter(name: str, flag: Flag) -> inspect.Parameter:
    text = flag.help.replace("[", "\\[")  # rich would read it as markup
    option = typer.Option(*flag.names, help=text, rich_help_panel=flag.panel, show_default=False)
    kind = flag.kind | None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option])


def asked_scenario(
    path: Path | None, given: Mapping[str, Any], settings: Sequence[str] | None, model: str | None = None
) -> Scenario:
    """The scenario file with the flags on top, and --set above both. Raises InputError."""
    from simtool.metrics import parse_slo
    from simtool.scenario import load_scenario

    values = dict(given)
    if "profiles" in values:  # each may hold a comma list
        values["profiles"] = ",".join(values["profiles"])
    if model is not None:
        values["model"] = model
    for pair in str(values.pop("prices", "")).replace(" ", "").split(","):
        if pair:
            device, _, dollars = pair.partition("=")
            values[f"price_per_hour.{device}"] = dollars
    if text := values.pop("slo", None):
        limits = parse_slo(text)
        for name in ("ttft", "tpot", "e2e"):
            if limit_s := getattr(limits, f"{name}_s"):
                values[f"slo.{name}_ms"] = limit_s * 1e3
    return load_scenario(path, values=values, settings=settings or ())


def join_slo_words(arguments: Sequence[str]) -> list[str]:
    """`--goodput ttft:200 tpot:50`, as vLLM's benchmark takes it, as one word: `--goodput ttft:200,tpot:50`."""
    joined: list[str] = []
    in_slo = False
    for word in arguments:
        if in_slo and _SLO_PAIR.match(word):
            if joined[-1] in _SLO_FLAGS:
                joined.append(word)
            else:
                joined[-1] += f",{word}"
            continue
        in_slo = word in _SLO_FLAGS
        joined.append(word)
    return joined
