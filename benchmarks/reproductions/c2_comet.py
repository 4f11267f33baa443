"""C2: Comet's fine-grained overlap of a mixture layer on eight H800, milliseconds before and after.

    python benchmarks/reproductions/c2_comet.py

Mechanism: `Overlap` and `Fusion` as data. Layer 0 is dispatch (all-gather) + GEMM, cut along the rows of the output,
the rank's own eighth first; layer 1 is GEMM + combine (reduce-scatter), cut along its columns, so that each chunk is
complete for all rows and can be summed over experts and sent. n_c of 132 thread blocks communicate, from launch to end
(`comm_sms`, `fixed_sms`). Kernels are the catalogue's: grouped GEMMs of CUTLASS as TensorRT-LLM's tables have them,
transferred from H200; collectives by NCCL's curve on 200 GB/s of NVLink. The combine also reads top-k rows a token.
One parameter is fitted, on n_c = 18 at M = 4096: FULL_BLOCKS, the thread blocks that fill a rank's NVLink
(`full_comm_sms`). Everything else is predicted blind: n_c at M = 16384, all times, hidden communication, gains.
Assumed: even routing, chunks of one column of tiles (128), M counts tokens. Rivals cut kernels in two or four chunks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from simtool.hardware.cluster import parse_cluster
from simtool.models.config import load_architecture
from simtool.models.lowering_kernels import collective, gemm
from simtool.models.operators import Array, Collective, Operator
from simtool.plan import All2AllBackend, Fusion, Overlap, Parallel, Pool
from simtool.simulator.batch_text import parse_batch
from simtool.simulator.overlap.kernel import Kernel, device_resources, make_kernel
from simtool.simulator.overlap.layers import Price, layer_graph
from simtool.simulator.overlap.step import overlapped_step
from simtool.simulator.priced_cluster import priced_cluster
from simtool.simulator.step_costs import StageHardware
from simtool.simulator.tasks.simulate import simulate_tasks
from simtool.simulator.tasks.timeline import Timeline

RANKS, ELEMENT_BYTES, TILE = 8, 2.0, 128
PUBLISHED_MS = {0: (4.702, 1.146), 1: (10.452, 1.863)}  # targets.md C2: layer → unoverlapped, fused
PUBLISHED_BLOCKS = {4096: 18, 16384: 26}  # tokens → best n_c, TP8
PUBLISHED_HIDDEN = {"fused": 0.865, "4 chunks": 0.686, "2 chunks": 0.292}  # Comet, Tutel, FasterMoE
PUBLISHED_GAIN = {"single layer": 1.96, "end to end": 1.71}
FITTED_TOKENS = 4096
FULL_BLOCKS = 22  # fitted, see `fit_full_blocks`
SWEEP = range(4, 65, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """A mixture layer: [tokens, hidden] x experts of [hidden, inner], each of them cut over the ranks.

    sum_bytes: an element of the partial sums that the combine sends.
    """

    tokens: float
    hidden: int = 8192
    inner: int = 8192
    experts: int = 32
    top_k: int = 4
    sum_bytes: float = ELEMENT_BYTES


def column(value: float) -> Array:
    return np.array([float(value)])


def grouped_gemms(shape: Mixture) -> Operator:
    """Both GEMMs of the experts of one rank."""
    sizes = {"tokens": shape.tokens, "hidden": shape.hidden, "inter": shape.inner, "top_k": shape.top_k}
    sizes |= {"num_experts": shape.experts, "moe_tp": RANKS, "moe_ep": 1}
    inner, rows = shape.inner / RANKS, shape.tokens * shape.top_k
    matrices = 2.0 * shape.hidden * inner
    return Operator(
        name="experts",
        family="moe",
        count=1,
        dtype="bf16",
        dims={name: column(size) for name, size in sizes.items()},
        flops=column(2.0 * rows * matrices),
        hbm_bytes=column(ELEMENT_BYTES * (shape.experts * matrices + rows * 2 * (shape.hidden + inner))),
        launches=2,
    )


def exchange(name: str, shape: Mixture) -> Operator:
    """All tokens gathered, or all outputs summed over experts and ranks and scattered."""
    gathers = name == "moe_dispatch"
    message = column(shape.tokens * shape.hidden * (ELEMENT_BYTES if gathers else shape.sum_bytes))
    kind: Collective = "all_gather" if gathers else "reduce_scatter"
    found = collective(name, kind, count=1, message_bytes=message, ranks=RANKS, nodes=1, dtype="bf16")
    return found if gathers else replace(found, hbm_bytes=(shape.top_k + 1.0) * message)


def hardware() -> StageHardware:
    return priced_cluster(parse_cluster(f"{RANKS}xh800"), "trtllm")[0]["h800"]


def kernels(shape: Mixture, found: StageHardware, layers: tuple[int, ...]) -> Price:
    """The kernels of layer 0, layer 1 or both, by share of the tokens."""

    def price(share: float) -> list[Kernel]:
        cut = replace(shape, tokens=share * shape.tokens)
        experts, made = grouped_gemms(cut), []
        if 0 in layers:
            made.append(make_kernel(exchange("moe_dispatch", cut), found))
            made.append(make_kernel(experts, found, name="experts_up", part=0.5))
        if 1 in layers:
            made.append(make_kernel(experts, found, name="experts_down", part=0.5))
            made.append(make_kernel(exchange("moe_combine", cut), found))
        return made

    return price


def comet(shape: Mixture, blocks: int, full_blocks: int) -> Overlap:
    rows = Fusion(
        collective="moe_dispatch",
        chunks=math.ceil(shape.tokens / TILE),
        producer=False,
        consumer=True,
        local_first=1.0 / RANKS,
    )
    columns = Fusion(collective="moe_combine", chunks=math.ceil(shape.hidden / TILE))
    return Overlap(fusions=(rows, columns), comm_sms=blocks, full_comm_sms=full_blocks, fixed_sms=True)


def chunked(chunks: int) -> Overlap:
    """Dispatch, experts and combine as kernels of their own on a part of the tokens (Tutel, FasterMoE)."""
    rows = Fusion(collective="moe_dispatch", chunks=chunks, producer=False, consumer=True, separate="kernels")
    return Overlap(fusions=(rows, Fusion(collective="moe_combine", chunks=chunks, separate="kernels")), comm_sms=20)


def run(price: Price, overlap: Overlap, found: StageHardware) -> Timeline:
    return simulate_tasks(layer_graph(price, overlap, 1, device_resources(found.device)))


def sweep(shape: Mixture, layers: tuple[int, ...], full_blocks: int, found: StageHardware) -> dict[int, float]:
    """n_c → seconds of the fused layer."""
    price = kernels(shape, found, layers)
    return {n: run(price, comet(shape, n, full_blocks), found).makespan_s for n in SWEEP}


def best_blocks(shape: Mixture, layers: tuple[int, ...], full_blocks: int, found: StageHardware) -> tuple[int, float]:
    """(n_c, seconds) of the fastest fused layer."""
    return min(sweep(shape, layers, full_blocks, found).items(), key=lambda item: item[1])


def fit_full_blocks(found: StageHardware) -> int:
    """The least FULL_BLOCKS whose best n_c of layer 1 is the published one on the fitted row."""
    shape, wanted = Mixture(tokens=FITTED_TOKENS), PUBLISHED_BLOCKS[FITTED_TOKENS]
    gaps = {full: abs(best_blocks(shape, (1,), full, found)[0] - wanted) for full in range(10, 41, 2)}
    return min(gaps, key=lambda full: gaps[full])


def hidden(timeline: Timeline, made: Sequence[Kernel]) -> tuple[float, float]:
    """Shares of the communication: what runs beside computation, and what the whole is shorter by."""
    sent = math.fsum(kernel.seconds for kernel in made if kernel.family == "collective")
    saved_s = math.fsum(kernel.seconds for kernel in made) - timeline.makespan_s
    return 1.0 - timeline.exposed_s("collective") / sent, saved_s / sent


def print_hidden(found: StageHardware, tokens: int) -> None:
    """Mixtral's layer, fused and as chunk pipelines."""
    shape = Mixture(tokens=tokens, hidden=4096, inner=14336, experts=8, top_k=2)
    price = kernels(shape, found, (0, 1))
    serial_s = math.fsum(kernel.seconds for kernel in price(1.0))
    blocks = best_blocks(shape, (0, 1), FULL_BLOCKS, found)[0]
    overlaps = {"fused": comet(shape, blocks, FULL_BLOCKS), "4 chunks": chunked(4), "2 chunks": chunked(2)}
    for name, overlap in overlaps.items():
        timeline = run(price, overlap, found)
        beside, saved = hidden(timeline, price(1.0))
        print(
            f"Mixtral's layer, {tokens} tokens, {name:8}: {beside:.1%} of communication beside computation,"
            f" {saved:.1%} of it saved (published {PUBLISHED_HIDDEN[name]:.1%});"
            f" {serial_s / timeline.makespan_s:.2f}x of unoverlapped"
        )
    print(f"  published single layer: {PUBLISHED_GAIN['single layer']}x of the rivals' mean")


def end_to_end(found: StageHardware, ep: int, tokens: int) -> tuple[float, int, float]:
    """(seconds without overlap, best n_c, its seconds) of Mixtral-8x7B's layers, `tokens` of prompts a rank.

    Attention is data-parallel; with ep = 1 experts are cut over the ranks, which gather all tokens (Comet's TP8).
    """
    backend: All2AllBackend = "deepep_high_throughput" if ep > 1 else "allgather_reducescatter"
    pool = Pool(device="h800", parallel=Parallel(dp=RANKS, ep=ep, all2all_backend=backend))
    arch, batch = load_architecture("mixtral-8x7b"), parse_batch(f"prefill:{tokens // 1024}x1024")
    seconds = {}
    for blocks in (0, *SWEEP):
        overlap = comet(Mixture(tokens=tokens, hidden=arch.hidden_size), blocks, FULL_BLOCKS) if blocks else Overlap()
        seconds[blocks] = overlapped_step(arch, pool, {"h800": found}, batch, overlap).seconds
    best = min(SWEEP, key=lambda blocks: seconds[blocks])
    return seconds[0], best, seconds[best]


def print_layers(found: StageHardware) -> None:
    print(f"{'layer':>5} {'':12} {'published':>9} {'simulated':>9} {'error':>7}   ms")
    for layer, (alone, fused) in PUBLISHED_MS.items():
        shape = Mixture(tokens=8192)
        serial = math.fsum(kernel.seconds for kernel in kernels(shape, found, (layer,))(1.0))
        blocks, best = best_blocks(shape, (layer,), FULL_BLOCKS, found)
        rows = (("unoverlapped", alone, serial), (f"fused n_c={blocks}", fused, best))
        for name, published, seconds in rows:
            print(f"{layer:5} {name:12} {published:9.3f} {1e3 * seconds:9.3f} {1e3 * seconds / published - 1:+7.1%}")
        for kernel in kernels(shape, found, (layer,))(1.0):
            print(f"{'':5} {kernel.name:12} {'':9} {1e3 * kernel.seconds:9.3f}")


def print_what_ifs(found: StageHardware) -> None:
    """What could be slower in the published layer 1: sums in fp32 or after the exchange, one expert at a time."""
    shape, price = Mixture(tokens=8192), found.cost_model.price
    message = shape.tokens * shape.hidden * shape.top_k * ELEMENT_BYTES
    for name, size in (("bf16", message), ("fp32", 2 * message)):
        sent = collective("x", "reduce_scatter", count=1, message_bytes=column(size), ranks=RANKS, nodes=1, dtype=name)
        print(f"reduce-scatter of all {shape.top_k} rows of a token in {name}: {1e3 * price(sent).seconds[0]:.2f} ms")
    rows = column(shape.tokens * shape.top_k / shape.experts)
    one = gemm("x", count=1, m=rows, n=shape.hidden, k=shape.inner / RANKS, dtype="bf16", activation_dtype="bf16")
    print(f"{shape.experts} GEMMs one by one: {1e3 * shape.experts * price(one).seconds[0]:.2f} ms")
    blocks, seconds = best_blocks(replace(shape, sum_bytes=4.0), (1,), FULL_BLOCKS, found)
    print(f"fused layer 1 whose partial sums travel in fp32: {1e3 * seconds:.2f} ms, n_c={blocks}")


def main() -> None:
    found = hardware()
    print(f"fitted: {fit_full_blocks(found)} thread blocks fill the link (in use: {FULL_BLOCKS})")
    for tokens, published in PUBLISHED_BLOCKS.items():
        seconds = sweep(Mixture(tokens=tokens), (1,), FULL_BLOCKS, found)
        best, said = min(seconds, key=lambda n: seconds[n]), "fitted" if tokens == FITTED_TOKENS else "blind"
        print(f"best n_c, layer 1, M = {tokens}: published {published}, simulated {best} ({said}); ms by n_c:")
        print("  " + " ".join(f"{n}:{1e3 * seconds[n]:.2f}" for n in SWEEP if n % 4 == 2))
    print_layers(found)
    print_what_ifs(found)
    for tokens in (8192, 16384):
        print_hidden(found, tokens)
    for ep, tokens in ((1, 1024), (1, 2048), (RANKS, 1024), (RANKS, 2048)):
        serial_s, blocks, fused_s = end_to_end(found, ep, tokens)
        gain = f"{serial_s / fused_s:.2f}x (published {PUBLISHED_GAIN['end to end']}x over the rivals' mean)"
        print(f"Mixtral's layers, EP{ep}, {tokens} tokens a rank, n_c={blocks}: {gain}")


if __name__ == "__main__":
    main()
