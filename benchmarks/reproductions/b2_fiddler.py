"""B2: Fiddler, Mixtral-8x7B in bf16 on a Quadro RTX 6000 with 24 GB and a 48-core Skylake host, tokens a second.

    python benchmarks/reproductions/b2_fiddler.py

Mechanism: the most used experts that fit are placed on the GPU and stay. For each other expert that a layer needs,
copying it (constant) or computing it on the CPU (linear in tokens) is chosen, whichever is shorter; the CPU runs beside
the GPU. A run is a prompt in one step and then one token a step; its speed is output tokens over all of its seconds.
Rivals: "Mixtral-offloading" has an LRU pool a layer in the same room, two slots of it for the next layer's experts;
"layer streaming" moves all layers for every step, one on its way while the one before it computes.
Nothing is fitted. Copies go over PCIe 3.0 x16 at the catalogue's rate and efficiency. The GPU's parts take the time to
read their weights (672 GB/s), or of their FLOPs at half of the datasheet's 130.5 TFLOP/s where that is longer. The
CPU's line goes through zero and the published break-even of ten tokens; "streamed" has it read the weights of each
expert first, at the peak of one socket's six channels of DDR4-2666. Routing: the source fitted to Mixtral's counts,
without locality; placement by another sequence's use. Assumed: (in, out) = {32, 64, 128, 256} x {64, 128, 256, 512},
and 90% of memory for weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simtool.hardware.collective_algorithms import LINK_EFFICIENCY
from simtool.hardware.links import load_link
from simtool.models.config import load_architecture
from simtool.models.memory import weight_bytes
from simtool.models.routing.predictors import GatePredictor
from simtool.models.routing.sampling import sample_trace
from simtool.models.routing.shape import moe_shape
from simtool.models.routing.source_text import parse_source
from simtool.models.routing.trace import RoutingTrace, loads
from simtool.simulator.offload import policy as stock
from simtool.simulator.offload.needs import every_step, expert_needs, ranked_needs
from simtool.simulator.offload.placing import split_slots, used_most
from simtool.simulator.offload.prices import Prices, by_tokens
from simtool.simulator.offload.store import expert_store, layer_store
from simtool.simulator.offload.walk import Walk, walk
from simtool.units import GIB

PUBLISHED = {"Fiddler": 2.48, "Mixtral-offloading": 0.28, "layer streaming": 0.13}  # targets.md B2
BREAK_EVEN_TOKENS = 10
INPUTS, OUTPUTS = (32, 64, 128, 256), (64, 128, 256, 512)
ARCHITECTURE = load_architecture("mixtral-8x7b")
SHAPE = moe_shape(ARCHITECTURE)
LAYERS, EXPERTS = len(SHAPE.layers), SHAPE.num_experts
EXPERT_BYTES = 3 * 4096 * 14336 * 2
OTHER_BYTES = weight_bytes(ARCHITECTURE) - LAYERS * EXPERTS * EXPERT_BYTES
GPU_BYTES, GPU_BYTES_PER_S = 0.9 * 24 * GIB, 672e9  # NVIDIA Quadro RTX 6000 datasheet
GPU_FLOPS = 0.5 * 130.5e12
DRAM_BYTES_PER_S = 6 * 21.3e9
SLOTS = int((GPU_BYTES - OTHER_BYTES) // EXPERT_BYTES)
STAGING = 2
RECALL = 0.6  # of the next layer's gate; as the four GPUs of b1_mixtral_offloading.py have it on average
SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Traces of a request and of another one."""

    trace: RoutingTrace
    other: RoutingTrace
    inputs: int
    outputs: int


def link_s(size: float) -> float:
    link = load_link("pcie3")
    return size / (link.bytes_per_s * LINK_EFFICIENCY[link.kind])


def gpu_s(size: float, tokens: float) -> float:
    """A part with `size` bytes of bf16 weights."""
    return max(size / GPU_BYTES_PER_S, tokens * size / GPU_FLOPS)


def run_of(inputs: int, outputs: int) -> Run:
    rng = np.random.default_rng(SEED)
    source, layers = parse_source("mixtral-8x7b", SHAPE, rng)
    sizes = {"sequences": 1, "prompt_tokens": inputs, "output_tokens": outputs}
    trace, other = (sample_trace(source, **sizes, rng=np.random.default_rng(seed), layers=layers) for seed in (1, 2))
    return Run(trace=trace, other=other, inputs=inputs, outputs=outputs)


def cpu_line(streamed: bool) -> tuple[float, float]:
    """(seconds of any expert, of each of its tokens): as long as a copy and the GPU's part at the break-even."""
    first_s = EXPERT_BYTES / DRAM_BYTES_PER_S if streamed else 0.0
    meets_s = link_s(EXPERT_BYTES) + gpu_s(EXPERT_BYTES, BREAK_EVEN_TOKENS)
    return first_s, (meets_s - first_s) / BREAK_EVEN_TOKENS


def prices(run: Run, streamed: bool = False) -> Prices:
    steps = int(run.trace.step.max()) + 1
    tokens = np.ones(steps)
    tokens[0] = run.inputs
    dense = np.array([gpu_s(OTHER_BYTES / LAYERS, count) for count in tokens])
    table = np.array([[gpu_s(EXPERT_BYTES, count) for count in range(max(INPUTS) + 1)]])
    first_s, token_s = cpu_line(streamed)
    return Prices(
        dense_s=np.repeat(dense[:, None], LAYERS, axis=1),
        expert_s=table,
        load_s=np.full(LAYERS * EXPERTS, link_s(EXPERT_BYTES)),
        cpu_s=by_tokens(first_s, token_s),
    )


def simulated(system: str, run: Run, streamed: bool = False) -> Walk:
    needs = expert_needs(run.trace.experts, run.trace.step, EXPERTS)
    if system == "layer streaming":
        whole = EXPERTS * EXPERT_BYTES + OTHER_BYTES / LAYERS
        layer = Prices(
            dense_s=np.zeros((1, LAYERS)),
            expert_s=by_tokens(gpu_s(whole, 1.0), 0.0),
            load_s=np.full(LAYERS, link_s(whole)),
        )
        needs = every_step(LAYERS, needs.steps)
        return walk(layer_store([int(whole)] * LAYERS, 2 * int(whole)), stock.streaming(1), needs, layer, guess=needs)
    uses = loads(run.other.experts, np.zeros(run.other.tokens, np.int64), 1, EXPERTS)[0]
    if system == "Fiddler":
        slots = split_slots(uses, SLOTS - STAGING)
        store = expert_store(LAYERS, EXPERTS, EXPERT_BYTES, slots.tolist(), staging=STAGING)
        placed = used_most(uses, slots.tolist())
        return walk(store, stock.static("cheaper", order="each"), needs, prices(run, streamed), resident=placed)
    found = GatePredictor(hit_rates=(RECALL,)).predict(run.trace, 1, np.random.default_rng(SEED))
    guess = ranked_needs(found.experts, run.trace.step, EXPERTS)
    slots = split_slots(uses, SLOTS - STAGING, least=1)
    store = expert_store(LAYERS, EXPERTS, EXPERT_BYTES, slots.tolist(), staging=STAGING)
    return walk(store, stock.speculative(), needs, prices(run), guess=guess)


def speeds(system: str, streamed: bool = False) -> dict[tuple[int, int], float]:
    """(in, out) -> output tokens a second."""
    return {
        (inputs, outputs): outputs / simulated(system, run_of(inputs, outputs), streamed).makespan_s
        for inputs in INPUTS
        for outputs in OUTPUTS
    }


def main() -> None:
    first_s, token_s = cpu_line(False)
    print(
        f"{SLOTS} experts on the GPU, a copy {link_s(EXPERT_BYTES) * 1e3:.1f} ms, on the GPU"
        f" {gpu_s(EXPERT_BYTES, 1) * 1e3:.2f} ms, on the CPU {token_s * 1e3:.2f} ms a token"
    )
    print(f"{'':20} {'published':>9} {'simulated':>9} {'error':>7} {'least':>6} {'most':>6}   tok/s")
    for system, published in PUBLISHED.items():
        found = speeds(system)
        mean = np.mean(list(found.values()))
        print(
            f"{system:20} {published:9.2f} {mean:9.2f} {mean / published - 1:+7.1%} {min(found.values()):6.2f}"
            f" {max(found.values()):6.2f}"
        )
    mean, (first_s, token_s) = np.mean(list(speeds("Fiddler", True).values())), cpu_line(True)
    print(
        f"{'  streamed':20} {'':9} {mean:9.2f} {mean / PUBLISHED['Fiddler'] - 1:+7.1%}"
        f"   CPU {first_s * 1e3:.1f} ms an expert and {token_s * 1e3:.2f} ms a token"
    )
    one = simulated("Fiddler", run_of(64, 256))
    print(
        f"in 64, out 256: prompt {one.end_s[0]:.1f} s, hit rate {one.hit_rate:.2f}, of the experts on the CPU"
        f" {one.total('cpu') / one.total('needed'):.2f}, copied {one.total('loads') / one.total('needed'):.2f}"
    )


if __name__ == "__main__":
    main()
