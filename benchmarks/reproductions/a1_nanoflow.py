"""A1: NanoFlow's throughput (arXiv 2408.12757), published beside simulated serving runs.

    python benchmarks/reproductions/a1_nanoflow.py

Llama-2-70B on 8 x A100-80G, TP8, constant lengths, all requests at once, prompt and output tokens a second and GPU.
Nothing is fitted. From the paper: the dense batch of 2048, cut into nano-batches of 768 and 1280 tokens, decode
attention and collectives on streams of their own. Assumed: TensorRT-LLM's kernels (NanoFlow calls the same libraries),
asynchronous scheduling, enough requests that ramps do not count. The published engines are of 2024; the simulated ones
are those that the profiles measured, and are shown, not claimed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from simtool.metrics import Slo
from simtool.overlaps import STOCK
from simtool.plan import KernelLibrary, Overlap, Parallel, Plan, Pool, Scheduler
from simtool.run import run_plan
from simtool.workload import make_workload

NANO = replace(STOCK["nano"], nano_batches=(0.375, 0.625))
PIECES = Overlap(nano_batches=NANO.nano_batches)  # the same cut, one kernel after the other
DENSE_BATCH = 2048
DEVICES = 8
REQUESTS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One constant workload, and what was published: tokens/s/GPU."""

    prompt: int
    output: int
    nanoflow: float
    trtllm: float
    vllm: float


ROWS = (
    Row(prompt=512, output=512, nanoflow=1286, trtllm=735, vllm=494),
    Row(prompt=1024, output=512, nanoflow=1263, trtllm=817, vllm=552),
    Row(prompt=512, output=1024, nanoflow=1212, trtllm=636, vllm=410),
)
OPTIMUM = 1857  # compute alone
PEAK_FLOPS, PARAMETERS = 260e12, 69e9  # "C = 256-265 TFLOP/s" of the paper's GEMMs


def tokens_per_s(
    prompt: int, output: int, overlap: Overlap, library: KernelLibrary = "trtllm", requests: int = REQUESTS
) -> float:
    """Prompt and output tokens a second and GPU of an offline run."""
    plan = Plan(
        model="llama-2-70b",
        cluster=f"{DEVICES}xa100-80g",
        kernel_library=library,
        pools=(
            Pool(
                device="a100-80g",
                parallel=Parallel(tp=DEVICES),
                scheduler=Scheduler(max_num_seqs=DENSE_BATCH, max_num_batched_tokens=DENSE_BATCH),
                overlap=overlap,
            ),
        ),
    )
    lengths = (np.full(requests, length, np.int32) for length in (prompt, output))
    return (
        run_plan(plan, make_workload(np.zeros(requests), *lengths), Slo()).metrics["total_token_throughput"] / DEVICES
    )


def main() -> None:
    """Print throughputs, then what each part of the overlap does."""
    print(f"optimum, compute alone: published {OPTIMUM}, C / 2P = {PEAK_FLOPS / (2 * PARAMETERS):.0f} tokens/s/GPU\n")
    print(f"{'prompt/output':14} {'published':>9} {'nano-batches':>12} {'error':>7}   {'no overlap':>10} {'gain':>6}"
          f"   {'TensorRT-LLM, vLLM then':>23}   {'now, simulated':>14}")  # fmt: skip
    for row in ROWS:
        found, plain = (tokens_per_s(row.prompt, row.output, overlap) for overlap in (NANO, Overlap()))
        now = tokens_per_s(row.prompt, row.output, Overlap(), "vllm")
        then = f"{row.trtllm:.0f}, {row.vllm:.0f}"
        print(f"{row.prompt:>6}/{row.output:<7} {row.nanoflow:9.0f} {found:12.0f} {found / row.nanoflow - 1:7.1%}   "
              f"{plain:10.0f} {found / plain - 1:6.1%}   {then:>23}   {plain:8.0f}, {now:.0f}")  # fmt: skip
    print()
    cases = (
        ("nano-batches one by one, 512/512", 512, 512, PIECES, -0.132),
        ("overlap, prompts alone (512/1)", 512, 1, NANO, 0.07),
        ("overlap, decode-heavy (512/1024)", 512, 1024, NANO, 0.17),
    )
    for name, prompt, output, overlap, published in cases:
        gain = tokens_per_s(prompt, output, overlap) / tokens_per_s(prompt, output, Overlap()) - 1
        print(f"{name:34} published {published:6.1%}   simulated {gain:6.1%}")


if __name__ == "__main__":
    main()
