"""Overlaps that engines and papers use, by name. Each is a value: change a field and it is another one."""

from __future__ import annotations

from dataclasses import replace

from simtool.plan import Fusion, Overlap

# Multiprocessors that NCCL and DeepEP kernels take beside others (DeepEP's default is 20 of 132).
_COMM_SMS = 20
_REDUCES = ("attention_all_reduce", "mlp_all_reduce")

STOCK: dict[str, Overlap] = {
    "none": Overlap(),
    # vLLM --enable-dbo, SGLang --enable-two-batch-overlap, DeepSeek-V3 (arXiv 2412.19437, section 3.4)
    "two-batch": Overlap(nano_batches=(0.5, 0.5), network_stream=True, comm_sms=_COMM_SMS),
    # NanoFlow (arXiv 2408.12757): decode attention and collectives beside GEMMs
    "nano": Overlap(nano_batches=(0.5, 0.5), attention_stream=True, network_stream=True, comm_sms=_COMM_SMS),
    # shared experts beside dispatch, routed experts and combine
    "shared-experts": Overlap(branch_stream=True, network_stream=True, comm_sms=_COMM_SMS),
    # FlashOverlap (arXiv 2504.19519): one GEMM signals, each group of waves is a message of its own
    "signalled": Overlap(
        fusions=tuple(Fusion(collective=name, chunks=4, separate="messages") for name in (*_REDUCES, "moe_combine")),
        comm_sms=_COMM_SMS,
    ),
    # Tutel, FasterMoE: the exchange and the experts in chunks of tokens, kernels of their own
    "chunked-experts": Overlap(
        fusions=(
            Fusion(collective="moe_dispatch", chunks=2, producer=False, consumer=True, separate="kernels"),
            Fusion(collective="moe_combine", chunks=2, separate="kernels"),
        ),
        comm_sms=_COMM_SMS,
    ),
    # Flux, Comet (arXiv 2502.19811): kernels send from inside, tile by tile
    "fused": Overlap(
        fusions=(
            *(Fusion(collective=name, chunks=16) for name in _REDUCES),
            Fusion(collective="moe_dispatch", chunks=16, producer=False, consumer=True),
            Fusion(collective="moe_combine", chunks=16),
        ),
        comm_sms=_COMM_SMS,
    ),
    # Prefill/decode disaggregation: KV to a decode pool on other nodes, by writes that need no multiprocessors.
    # Splitwise (arXiv 2311.18677) has both, Mooncake (arXiv 2407.00079, layer-wise prefill) the second.
    "kv-whole": Overlap(kv_transfer="whole"),
    "kv-layers": Overlap(kv_transfer="layers"),
}


def overlap_name(overlap: Overlap) -> str:
    """The stock name of an overlap, whatever its token thresholds; "own" for one that is not in stock."""
    bare = replace(overlap, min_tokens=0, min_prefill_tokens=0)
    if bare.off:
        return "none"
    return next((name for name, stock in STOCK.items() if stock == bare), "own")
