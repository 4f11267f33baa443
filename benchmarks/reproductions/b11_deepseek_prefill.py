"""B11: DeepSeek-V3's prefill on 4 nodes of 8 H100 with EP32, tokens a second and node by prompt length.

    python benchmarks/reproductions/b11_deepseek_prefill.py

Published by SGLang's authors (large-scale expert parallelism on 96 H100), with two-batch overlap and their own load
balance, and at 4K with perfect balance, which is what is simulated: routing is even, every rank has the same prompts.
Mechanism: one step of 16,384 tokens a device, its operators at the catalogue's prices (SGLang's tables carried from
H200, DeepEP's normal kernels), less what the stock overlap "two-batch" saves. Nothing is fitted. Assumed: that batch,
400 Gb/s a device, no redundant experts (32 of them move nothing by 0.5%), no prefix cache, no time between steps.
"""

from __future__ import annotations

from simtool.hardware.cluster import parse_cluster
from simtool.models.config import load_architecture
from simtool.overlaps import STOCK
from simtool.plan import Parallel, Pool, Scheduler
from simtool.simulator.batch_text import parse_batch
from simtool.simulator.explain import StepExplanation, explain_step
from simtool.simulator.overlap.step import OverlappedStep, overlapped_step
from simtool.simulator.priced_cluster import priced_cluster

PUBLISHED = {1024: 57_674.0, 2048: 54_543.0, 4096: 50_302.0}  # targets.md B11
PERFECT_BALANCE = {4096: 59_337.0}
NODES, NODE, STEP_TOKENS = 4, 8, 16_384
POOL = Pool(
    device="h100-sxm",
    parallel=Parallel(dp=NODES * NODE, ep=NODES * NODE, all2all_backend="deepep_high_throughput"),
    scheduler=Scheduler(max_num_batched_tokens=STEP_TOKENS),
)


def prefill(prompt_tokens: int) -> tuple[StepExplanation, OverlappedStep]:
    """A step of as many prompts as fill it, one kernel after the other, and what overlapping its layers makes of it."""
    hardware, host = priced_cluster(parse_cluster(f"{NODES}x{NODE}xh100"), "sglang")
    arch, batch = (
        load_architecture("deepseek-v3"),
        parse_batch(f"prefill:{STEP_TOKENS // prompt_tokens}x{prompt_tokens}"),
    )
    serial = explain_step(arch, POOL, hardware, batch, host=host)
    return serial, overlapped_step(arch, POOL, hardware, batch, STOCK["two-batch"])


def tokens_per_s(serial: StepExplanation, overlapped: OverlappedStep) -> float:
    """Of a node."""
    return STEP_TOKENS * NODE / (serial.seconds - overlapped.serial_s + overlapped.seconds)


def main() -> None:
    print(f"{'prompt':>6} {'published':>9} {'simulated':>9} {'error':>7} {'no overlap':>10}  tokens/s/node")
    for prompt_tokens, published in PUBLISHED.items():
        serial, overlapped = prefill(prompt_tokens)
        found, alone = tokens_per_s(serial, overlapped), STEP_TOKENS * NODE / serial.seconds
        print(f"{prompt_tokens:6d} {published:9,.0f} {found:9,.0f} {found / published - 1:+7.1%} {alone:10,.0f}")
        if balanced := PERFECT_BALANCE.get(prompt_tokens):
            print(f"{'':6} {balanced:9,.0f} {found:9,.0f} {found / balanced - 1:+7.1%} {'':10}  perfect balance")
    print("largest operators of the last row, ms a step:")
    for row in sorted(serial.rows, key=lambda row: -row.seconds)[:6]:
        print(f"  {row.name:14s} {row.seconds * 1e3:7.0f}  {row.provenance:12s} {row.flops_per_s / 1e12:5.0f} TFLOP/s")


if __name__ == "__main__":
    main()
