"""A pool as `sglang.launch_server` options. SGLang counts ranks and limits over all attention ranks of a replica."""

from __future__ import annotations

from simtool.emit.command import Options
from simtool.emit.option_table import OptionTable
from simtool.emit.subject import Subject, check_all2all, check_experts, check_offload, dtype_options
from simtool.errors import InputError
from simtool.hardware.own_cluster import own_cluster
from simtool.hardware.server import usual_server
from simtool.overlaps import overlap_name
from simtool.plan import Pool

SERVE = "sglang.launch_server"
_KV = {"auto": "auto", "bf16": "bfloat16", "fp8": "fp8_e4m3", "nvfp4": "nvfp4"}
_KT_METHODS = {"bf16": "BF16", "fp8": "FP8"}
_DEEPEP_MODES = {"deepep_high_throughput": "normal", "deepep_low_latency": "low_latency"}


def sglang_options(subject: Subject, pool: Pool, table: OptionTable) -> Options:
    """The options of one replica. Raises InputError."""
    options = _parallel(subject, pool, table)
    options += dtype_options(subject, table)
    options += _scheduler(pool, table)
    options += _graphs(pool, table)
    options += _cache(pool, table)
    options += _overlap(pool, table)
    options += _offload(subject, pool, table)
    if subject.served_name != subject.model:
        options.append(("--served-model-name", (subject.served_name,)))
    return options


def sglang_environment(pool: Pool) -> tuple[tuple[str, str], ...]:
    """What SGLang takes from the environment alone."""
    layers = pool.parallel.layers_per_stage
    return (("SGLANG_PP_LAYER_PARTITION", ",".join(map(str, layers))),) if layers else ()


def _parallel(subject: Subject, pool: Pool, table: OptionTable) -> Options:
    p = pool.parallel
    check_experts(subject, pool)
    if p.dp > 1 and p.pp > 1:
        raise InputError("dp", "SGLang has no DP attention across pipeline stages", "dp=1 or pp=1, or --target vllm")
    options: Options = [("--tp-size", (str(p.tp * p.dp),))]  # attention ranks are cut out of its tensor-parallel ones
    if p.pp > 1:
        options.append(("--pp-size", (str(p.pp),)))
    if p.dp > 1:
        options += [("--dp-size", (str(p.dp),)), ("--enable-dp-attention", ())]
    if p.ep > 1:
        options.append(("--ep-size", (str(p.ep),)))
    if check_all2all(pool, table.title):
        mode = _DEEPEP_MODES[p.all2all_backend]
        options += [("--moe-a2a-backend", ("deepep",)), ("--deepep-mode", (mode,))]
    return options


def _scheduler(pool: Pool, table: OptionTable) -> Options:
    s, dp = pool.scheduler, pool.parallel.dp
    if s.scheduling in ("no_chunking", "static"):
        hint = "--scheduling chunked or prefill_first, or --target trtllm"
        raise InputError("scheduling", f"{table.title} has no {s.scheduling} scheduling", hint)
    options: Options = [
        ("--max-running-requests", (str(s.max_num_seqs * dp),)),
        ("--chunked-prefill-size", (str(s.max_num_batched_tokens * dp),)),
        ("--max-prefill-tokens", (str(s.max_num_batched_tokens),)),
        ("--schedule-policy", ("fcfs",)),
    ]
    if s.scheduling == "chunked":
        options.append(("--enable-mixed-chunk", ()))
    if s.policy == "priority":  # a plan's smaller number goes first, SGLang's larger one
        options += [("--enable-priority-scheduling", ()), ("--schedule-low-priority-values-first", ())]
    if not s.async_scheduling:
        options.append(("--disable-overlap-schedule", ()))
    if s.max_model_len:
        options.append(("--context-length", (str(s.max_model_len),)))
    return options


def _graphs(pool: Pool, table: OptionTable) -> Options:
    s = pool.scheduler
    if not s.cuda_graphs:
        return [("--disable-cuda-graph", ())]
    if s.cuda_graph_sizes:  # the prefill graphs got options of their own, and the decode ones a new name
        name = table.option(SERVE, "--cuda-graph-bs-decode", "--cuda-graph-bs").name
        return [(name, tuple(map(str, s.cuda_graph_sizes)))]
    return []


def _cache(pool: Pool, table: OptionTable) -> Options:
    kv = pool.kv
    if kv.dtype not in _KV or not table.has(SERVE, "--kv-cache-dtype", _KV[kv.dtype]):
        known = ", ".join(name for name, value in _KV.items() if table.has(SERVE, "--kv-cache-dtype", value))
        raise InputError("kv.dtype", f"{table.title} stores no {kv.dtype} KV cache", f"one of {known}")
    if kv.watermark:
        rule = f"SGLang keeps no share of blocks free (watermark = {kv.watermark})"
        raise InputError("watermark", rule, "a watermark of 0, or --target vllm")
    options: Options = [
        ("--kv-cache-dtype", (_KV[kv.dtype],)),
        ("--page-size", (str(kv.block_size),)),
        ("--mem-fraction-static", (str(kv.gpu_memory_utilization),)),
    ]
    if kv.num_gpu_blocks:
        options.append(("--max-total-tokens", (str(kv.num_gpu_blocks * kv.block_size),)))
    if not kv.prefix_caching:
        options.append(("--disable-radix-cache", ()))
    return options


def _overlap(pool: Pool, table: OptionTable) -> Options:
    flags = {"two-batch": "--enable-two-batch-overlap", "shared-experts": "--enable-single-batch-overlap"}
    name, overlap = overlap_name(pool.overlap), pool.overlap
    if overlap.kv_transfer:
        rule = f"{table.title} sends KV to another pool as --disaggregation-mode says, which a plan does not describe"
        raise InputError("overlap", rule, "--overlap none, and add the disaggregation options of your pools")
    if name == "none":
        return []
    if name not in flags:
        raise InputError("overlap", f"{table.title} has no {name} overlap", f"--overlap {', '.join(flags)} or none")
    if not pool.parallel.sends_tokens:
        rule = f"SGLang has {name} only where DeepEP sends tokens"
        raise InputError("overlap", rule, "--all2all-backend deepep_low_latency or deepep_high_throughput")
    if overlap.min_tokens or overlap.min_prefill_tokens:
        rule = "SGLang chooses by itself which steps overlap, the plan states thresholds"
        raise InputError("overlap", rule, "thresholds of 0, or --target vllm")
    return [(table.option(SERVE, flags[name]).name, ())]


def _offload(subject: Subject, pool: Pool, table: OptionTable) -> Options:
    """KTransformers inside SGLang: so many experts of each layer on the GPU, all cores compute the others as stored."""
    if not check_offload(pool, table.title, "static-cpu"):
        return []
    stored = subject.architecture.dtypes.experts
    if stored not in _KT_METHODS:
        rule = f"KTransformers computes no {stored} experts on a CPU as they are stored"
        raise InputError("offload", rule, f"weights in {' or '.join(_KT_METHODS)}")
    device = own_cluster(subject.plan.cluster, subject.plan.profiles).group_of(pool.device).device
    return [
        ("--kt-num-gpu-experts", (str(pool.offload.slots),)),
        ("--kt-method", (_KT_METHODS[stored],)),
        ("--kt-weight-path", (subject.model,)),
        ("--kt-cpuinfer", (str(usual_server(device).cores),)),
    ]
