"""A pool as `trtllm-serve` options and the YAML of its LLM API options."""

from __future__ import annotations

from typing import Any

from simtool.emit.command import Options
from simtool.emit.option_table import OptionTable
from simtool.emit.subject import Subject, check_experts, check_offload, weights_of
from simtool.errors import InputError
from simtool.overlaps import overlap_name
from simtool.plan import KvPolicy, Pool

SERVE = "trtllm-serve"
CONFIG = "extra_llm_api_options"
_KV = {"auto": "auto", "fp8": "fp8", "nvfp4": "nvfp4"}


def trtllm_options(subject: Subject, pool: Pool, table: OptionTable) -> Options:
    """The command's own options of one replica. Raises InputError."""
    p, s = pool.parallel, pool.scheduler
    _check(subject, pool, table)
    options: Options = [
        ("--backend", ("pytorch",)),
        ("--tp_size", (str(p.tp * p.dp),)),
        ("--pp_size", (str(p.pp),)),
        ("--max_batch_size", (str(s.max_num_seqs),)),
        ("--max_num_tokens", (str(s.max_num_batched_tokens),)),
        ("--kv_cache_free_gpu_memory_fraction", (str(pool.kv.gpu_memory_utilization),)),
    ]
    if p.ep > 1:
        options.append(("--ep_size", (str(p.ep),)))
    if s.max_model_len:
        options.append(("--max_seq_len", (str(s.max_model_len),)))
    return options


def trtllm_config(pool: Pool, table: OptionTable) -> dict[str, Any]:
    """The LLM API options, each checked against the table. Raises InputError."""
    s, kv = pool.scheduler, pool.kv
    policy = "STATIC_BATCH" if s.scheduling == "static" else "MAX_UTILIZATION"  # which preempts, as the plan's does
    cache: dict[str, Any] = {
        "dtype": _cache_dtype(kv, table),
        "enable_block_reuse": kv.prefix_caching,
        "tokens_per_block": kv.block_size,
    }
    if kv.num_gpu_blocks:
        cache["max_tokens"] = kv.num_gpu_blocks * kv.block_size
    config: dict[str, Any] = {
        "enable_attention_dp": pool.parallel.dp > 1,
        "enable_chunked_prefill": s.scheduling == "chunked",
        "disable_overlap_scheduler": not s.async_scheduling,
        "scheduler_config": {"capacity_scheduler_policy": policy},
        "kv_cache_config": cache,
    }
    if not s.cuda_graphs:
        config["cuda_graph_config"] = None
    elif s.cuda_graph_sizes:
        config["cuda_graph_config"] = {"enable_padding": True, "batch_sizes": list(s.cuda_graph_sizes)}
    for name, value in _leaves(config):
        if value is not None:
            table.check(CONFIG, name, _values(value))
    return config


def _cache_dtype(kv: KvPolicy, table: OptionTable) -> str:
    if kv.dtype not in _KV:
        raise InputError("kv.dtype", f"{table.title} stores no {kv.dtype} KV cache", f"one of {', '.join(_KV)}")
    return _KV[kv.dtype]


def _leaves(config: dict[str, Any], above: str = "") -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for key, value in config.items():
        leaves += _leaves(value, f"{above}{key}.") if isinstance(value, dict) else [(above + key, value)]
    return leaves


def _values(value: Any) -> tuple[str, ...]:
    if isinstance(value, bool):
        return ()
    return tuple(map(str, value)) if isinstance(value, list) else (str(value),)


def _check(subject: Subject, pool: Pool, table: OptionTable) -> None:
    p, s, kv = pool.parallel, pool.scheduler, pool.kv
    check_experts(subject, pool)
    if weights_of(subject, table.title, quantises=()).kind == "cast":
        rule = f"{table.title} loads weights as the checkpoint stores them, not as {subject.plan.weight_dtype}"
        raise InputError("weight_dtype", rule, "--weight-dtype auto")
    if s.scheduling == "prefill_first":
        hint = "--scheduling chunked, no_chunking or static, or --target sglang"
        raise InputError("scheduling", f"{table.title} has no prefill_first scheduling", hint)
    check_offload(pool, table.title)
    if pool.overlap.kv_transfer:
        rule = f"{table.title} sends KV to another pool by its cache transceiver, which a plan does not describe"
        raise InputError("overlap", rule, "--overlap none, and add cache_transceiver_config for your pools")
    if not pool.overlap.off:
        hint = "--overlap none, or --target vllm or sglang"
        raise InputError("overlap", f"{table.title} has no {overlap_name(pool.overlap)} overlap to turn on", hint)
    if s.policy != "fcfs":
        raise InputError("policy", f"{table.title} has no {s.policy} policy", "fcfs, or --target vllm")
    if p.dp > 1 and p.tp > 1:
        rule = f"attention DP gives every rank its own attention, not dp={p.dp} groups of tp={p.tp}"
        raise InputError("dp", rule, "tp=1 or dp=1, or --target vllm")
    if p.all2all_backend != "allgather_reducescatter":
        rule = f"{table.title} chooses its exchange of tokens itself, not {p.all2all_backend}"
        raise InputError("all2all_backend", rule, "allgather_reducescatter, or --target vllm")
    if p.layers_per_stage:
        raise InputError("layers_per_stage", f"{table.title} splits layers over stages itself", "leave the split out")
    if kv.watermark:
        raise InputError("watermark", f"{table.title} keeps no share of blocks free", "a watermark of 0")
    if kv.block_size & (kv.block_size - 1):
        raise InputError("block_size", f"{table.title} wants a power of two tokens a block", "16, 32 or 64")
