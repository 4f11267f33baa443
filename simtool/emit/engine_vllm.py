"""A pool as `vllm serve` options. Names follow the version's table; what vLLM cannot do is refused with the reason."""

from __future__ import annotations

from simtool.emit.command import Options
from simtool.emit.option_table import OptionTable
from simtool.emit.subject import Subject, check_all2all, check_experts, check_offload, dtype_options
from simtool.errors import InputError
from simtool.models.offload_memory import offloaded_bytes
from simtool.overlaps import overlap_name
from simtool.plan import Pool
from simtool.units import GIB

SERVE = "vllm serve"
_KV = {"auto": "auto", "bf16": "bfloat16", "fp16": "float16", "fp8": "fp8", "nvfp4": "nvfp4"}
_ELSEWHERE = {
    "prefill_first": "--target sglang, whose default it is, or --scheduling chunked",
    "static": "--target trtllm, which has it, or --scheduling chunked",
}


def vllm_options(subject: Subject, pool: Pool, table: OptionTable) -> Options:
    """The options of one replica. Raises InputError."""
    options = _parallel(subject, pool, table)
    options += dtype_options(subject, table)
    options += _scheduler(subject, pool, table)
    options += _cache(pool, table)
    options += _overlap(pool, table)
    options += _offload(subject, pool, table)
    if subject.served_name != subject.model:
        options.append(("--served-model-name", (subject.served_name,)))
    return options


def vllm_environment(pool: Pool) -> tuple[tuple[str, str], ...]:
    """What vLLM takes from the environment alone."""
    layers = pool.parallel.layers_per_stage
    return (("VLLM_PP_LAYER_PARTITION", ",".join(map(str, layers))),) if layers else ()


def switched(table: OptionTable, program: str, name: str, on: bool) -> Options:
    """A flag turned on or off; the name of "off" differs between versions."""
    option = table.option(program, name)
    if on:
        return [(option.name, ())]
    if not option.negative:
        raise InputError(name, f"{table.title} cannot turn it off")
    return [(option.negative, ())]


def _parallel(subject: Subject, pool: Pool, table: OptionTable) -> Options:
    p = pool.parallel
    check_experts(subject, pool)
    if p.ep not in (1, p.tp * p.dp):
        rule = f"vLLM spreads experts over all of tp x dp = {p.tp * p.dp} ranks or over none, not ep={p.ep}"
        raise InputError("ep", rule, f"ep=1 or ep={p.tp * p.dp}, or --target sglang")
    options: Options = [("--tensor-parallel-size", (str(p.tp),))]
    if p.pp > 1:
        options.append(("--pipeline-parallel-size", (str(p.pp),)))
    if p.dp > 1:
        options.append(("--data-parallel-size", (str(p.dp),)))
    if p.ep > 1:
        options += switched(table, SERVE, "--enable-expert-parallel", True)
    if check_all2all(pool, table.title):
        options.append(("--all2all-backend", (p.all2all_backend,)))
    return options


def _scheduler(subject: Subject, pool: Pool, table: OptionTable) -> Options:
    s = pool.scheduler
    if s.scheduling in _ELSEWHERE:
        raise InputError("scheduling", f"{table.title} has no {s.scheduling} scheduling", _ELSEWHERE[s.scheduling])
    if s.max_num_batched_tokens < s.max_num_seqs:
        rule = f"{s.max_num_batched_tokens} is below max_num_seqs = {s.max_num_seqs}, which vLLM refuses"
        raise InputError("max_num_batched_tokens", rule, "give at least as many tokens as sequences")
    context = s.max_model_len or subject.context
    if s.scheduling == "no_chunking" and s.max_num_batched_tokens < context:
        rule = f"without chunking vLLM wants at least max_model_len = {context} tokens a step"
        raise InputError("max_num_batched_tokens", rule, "raise it, or lower max_model_len")
    options: Options = [
        ("--max-num-seqs", (str(s.max_num_seqs),)),
        ("--max-num-batched-tokens", (str(s.max_num_batched_tokens),)),
        *switched(table, SERVE, "--enable-chunked-prefill", s.scheduling == "chunked"),
        ("--scheduling-policy", (s.policy,)),
        *switched(table, SERVE, "--async-scheduling", s.async_scheduling),
    ]
    if s.max_model_len:
        options.append(("--max-model-len", (str(s.max_model_len),)))
    if not s.cuda_graphs:
        options.append(("--enforce-eager", ()))
    elif s.cuda_graph_sizes:
        options.append(("--cudagraph-capture-sizes", tuple(map(str, s.cuda_graph_sizes))))
    return options


def _cache(pool: Pool, table: OptionTable) -> Options:
    kv = pool.kv
    if kv.dtype not in _KV or not table.has(SERVE, "--kv-cache-dtype", _KV[kv.dtype]):
        known = ", ".join(name for name, value in _KV.items() if table.has(SERVE, "--kv-cache-dtype", value))
        raise InputError("kv.dtype", f"{table.title} stores no {kv.dtype} KV cache", f"one of {known}")
    options: Options = [
        ("--kv-cache-dtype", (_KV[kv.dtype],)),
        ("--block-size", (str(kv.block_size),)),
        ("--gpu-memory-utilization", (str(kv.gpu_memory_utilization),)),
        *switched(table, SERVE, "--enable-prefix-caching", kv.prefix_caching),
    ]
    if kv.num_gpu_blocks:
        options.append(("--num-gpu-blocks-override", (str(kv.num_gpu_blocks),)))
    if kv.watermark:
        if not table.has(SERVE, "--watermark"):
            rule = f"{table.title} keeps no blocks free (watermark = {kv.watermark})"
            raise InputError("watermark", rule, "a newer --engine-version, or a watermark of 0")
        options.append(("--watermark", (str(kv.watermark),)))
    return options


def _overlap(pool: Pool, table: OptionTable) -> Options:
    """Two batches; shared experts get a stream of their own without being asked."""
    name, p, overlap = overlap_name(pool.overlap), pool.parallel, pool.overlap
    if overlap.kv_transfer:
        rule = f"{table.title} sends KV by a connector (--kv-transfer-config), which a plan does not describe"
        raise InputError("overlap", rule, "--overlap none, and add the connector of your decode pool")
    if name in ("none", "shared-experts"):
        return []
    if name != "two-batch":
        hint = "--overlap two-batch, shared-experts or none"
        raise InputError("overlap", f"{table.title} has no {name} overlap", hint)
    if not p.sends_tokens:
        rule = "vLLM overlaps two batches only where DeepEP sends tokens"
        raise InputError("overlap", rule, "--all2all-backend deepep_low_latency or deepep_high_throughput")
    thresholds = {"--dbo-decode-token-threshold": overlap.min_tokens}
    thresholds["--dbo-prefill-token-threshold"] = overlap.min_prefill_tokens
    return [
        *switched(table, SERVE, "--enable-dbo", True),
        *((option, (str(tokens),)) for option, tokens in thresholds.items()),
    ]


def _offload(subject: Subject, pool: Pool, table: OptionTable) -> Options:
    """vLLM keeps the first layers' experts in host memory, until so many GiB are there, and its kernels read them."""
    if not check_offload(pool, table.title, "zero-copy"):
        return []
    if not table.has(SERVE, "--cpu-offload-params"):
        rule = f"{table.title} cannot be told to offload experts alone"
        raise InputError("offload", rule, "a newer --engine-version")
    gib = offloaded_bytes(subject.architecture, pool) / GIB
    return [
        ("--offload-backend", ("uva",)),
        ("--cpu-offload-gb", (f"{gib:.2f}",)),
        ("--cpu-offload-params", ("experts",)),
    ]
