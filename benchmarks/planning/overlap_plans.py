"""Overlap plans of real layers: what no overlap, two fixed chunks, list scheduling and the planner make of a layer.

    python benchmarks/planning/overlap_plans.py [--seconds 30] [--only TEXT] [--batches 1 2 3] [--progress]

A row is one repeating layer of a step: operators of the model under the plan, priced by the catalogue's cost model,
elementwise kernels with the GEMM they feed. The interference table is NanoFlow's one clear point. Periods in
microseconds; every schedule is verified, unrolled as a task graph and simulated.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from simtool.hardware.cluster import parse_cluster
from simtool.models.config import load_architecture
from simtool.models.lowering import token_operators
from simtool.models.lowering_attention import decode_operators, prefill_operators
from simtool.models.lowering_mlp import expert_operators
from simtool.models.lowering_shard import Shard, make_shard
from simtool.models.operators import Operator
from simtool.plan import All2AllBackend, Parallel
from simtool.planners.schedule.curves import LINEAR, SATURATING, Part, Price, make_layer
from simtool.planners.schedule.layer import LayerProblem
from simtool.planners.schedule.overlap import OverlapPlan, plan_overlap
from simtool.planners.schedule.progress import Effort, Progress
from simtool.planners.schedule.unroll import simulated_period_s
from simtool.planners.schedule.verify import check_modulo_schedule
from simtool.simulator.priced_cluster import priced_cluster
from simtool.simulator.step_costs import StageHardware

CURVES = {"compute": LINEAR, "memory": SATURATING, "network": SATURATING}
# Operator → (part of the layer, parts before it). Elementwise kernels belong to the GEMM they feed or follow.
PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "qkv": (("qkv", "qkv_a", "q_b", "kv_b", "rope_kv_write", "norm_residual"), ()),
    "attention": (("attention_decode", "attention_prefill", "mla_decode", "mla_prefill"), ("qkv",)),
    "o": (("o",), ("attention",)),
    "attention_reduce": (("tp_all_reduce",), ("o",)),
    "gate_up": (("gate_up", "activation"), ("attention_reduce", "o")),
    "down": (("down",), ("gate_up",)),
    "mlp_reduce": (("tp_all_reduce",), ("down",)),
    "route": (("router", "router_topk"), ("attention_reduce", "o")),
    "dispatch": (("moe_dispatch",), ("route",)),
    "shared": (("shared_gate_up", "shared_activation", "shared_down"), ("route",)),
    "experts": (("experts",), ("dispatch", "route")),
    "combine": (("moe_combine",), ("experts",)),
    "gather": (("moe_all_gather",), ("combine",)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A layer of a step of one rank: decodes x kv tokens, prefill tokens (one prompt)."""

    model: str
    devices: str
    parallel: Parallel
    decodes: int = 0
    kv: int = 1024
    prefill: int = 0

    @property
    def name(self) -> str:
        p = self.parallel
        degrees = "".join(
            f" {name}{n}" for name, n in (("tp", p.tp), ("pp", p.pp), ("dp", p.dp), ("ep", p.ep)) if n > 1
        )
        batch = [f"d{self.decodes}x{self.kv}"] * (self.decodes > 0) + [f"p{self.prefill}"] * (self.prefill > 0)
        return f"{self.model} {self.devices}{degrees} {'+'.join(batch)}"


LLAMA, DEEPSEEK, QWEN = "llama-3.1-70b", "deepseek-v3", "qwen3-235b-a22b"
TP8 = Parallel(tp=8)
THROUGHPUT: All2AllBackend = "deepep_high_throughput"


def ep(devices: int, backend: All2AllBackend = "deepep_low_latency") -> Parallel:
    return Parallel(dp=devices, ep=devices, all2all_backend=backend)


CASES = (
    *(Case(model=LLAMA, devices=d, parallel=TP8, prefill=n) for d in ("8xh100", "8xa100-80g") for n in (2048, 8192)),
    *(Case(model=LLAMA, devices=d, parallel=TP8, decodes=n) for d in ("8xh100", "8xa100-80g") for n in (32, 256, 1024)),
    Case(model=LLAMA, devices="8xa100-80g", parallel=TP8, decodes=1024, kv=768, prefill=1024),
    Case(model=QWEN, devices="8xh100", parallel=ep(8), decodes=64),
    Case(model=QWEN, devices="8xh100", parallel=ep(8), decodes=256),
    Case(model=QWEN, devices="8xh100", parallel=ep(8, THROUGHPUT), prefill=4096),
    *(Case(model=DEEPSEEK, devices="4x8xh100", parallel=ep(32), decodes=n, kv=2048) for n in (32, 64, 128, 256)),
    Case(model=DEEPSEEK, devices="2x8xh100", parallel=ep(16), decodes=128, kv=2048),
    Case(model=DEEPSEEK, devices="4x8xh100", parallel=ep(32, THROUGHPUT), prefill=4096),
    Case(model=DEEPSEEK, devices="8x8xh100", parallel=ep(64), decodes=128, kv=2048),
    Case(model=DEEPSEEK, devices="8x8xh100", parallel=ep(64, THROUGHPUT), prefill=4096),
    *(
        Case(model=LLAMA, devices="8xh100", parallel=Parallel(tp=4, pp=2), **batch)
        for batch in ({"decodes": 256}, {"prefill": 4096})
    ),
    Case(model=LLAMA, devices="8xa100-80g", parallel=Parallel(tp=2, pp=4), prefill=4096),
    Case(model="llama-3.1-405b", devices="2x8xh100", parallel=Parallel(tp=8, pp=2), decodes=256),
)


def operators(shard: Shard, case: Case, share: float) -> list[Operator]:
    """One layer's operators on `share` of the batch. Requests and prompts are cut alike."""

    def one(value: float) -> np.ndarray:
        return np.array([value])

    decodes, prefill = share * case.decodes, share * case.prefill
    found = token_operators(shard, one(decodes + prefill))
    found += expert_operators(shard, one((decodes + prefill) * shard.parallel.dp))
    if decodes:
        found += decode_operators(shard, one(decodes), one(case.kv))
    if prefill:  # whole prompts of 1024, so that cutting the batch does not cut them
        found += prefill_operators(shard, one(prefill / 1024), one(1024.0), one(0.0))
    return found


def price_of(case: Case) -> tuple[Price, list[tuple[int, int]]]:
    """Prices of the parts of the model's last layer, and their order."""
    arch = load_architecture(case.model)
    arch = replace(arch, layers=arch.layers[-1:] * case.parallel.pp)
    hardware = next(iter(priced_cluster(parse_cluster(case.devices), "vllm")[0].values()))
    shard = make_shard(arch, case.parallel, 0, devices_per_node=hardware.devices_per_node)
    names = {operator.name for operator in operators(shard, case, 1.0)}
    present = [part for part, (members, _) in PARTS.items() if names & set(members)]
    if "mlp_reduce" in present and "down" not in names:
        present.remove("mlp_reduce")
    order = [(first, part) for part in present for first in PARTS[part][1] if first in present]

    def price(share: float) -> list[Part]:
        members = operators(shard, case, share)
        return [_part(part, [o for o in members if o.name in PARTS[part][0]], hardware) for part in present]

    return price, [(present.index(first), present.index(part)) for first, part in order]


def _part(name: str, members: Sequence[Operator], hardware: StageHardware) -> Part:
    """Kernels one after the other; what limits most of their time is the part's kind. One call of each a layer."""
    floors, seconds = np.zeros(2), 0.0
    for operator in members:
        calls = 2 if operator.name == "norm_residual" else 1
        seconds += calls * float(hardware.cost_model.price(operator).seconds[0])
        floors += calls * np.array(
            [
                operator.flops[0] / hardware.device.peak_flops(operator.dtype),
                operator.hbm_bytes[0] / hardware.device.hbm_bytes_per_s,
            ]
        )
    busy = {"hbm": min(seconds, float(floors[1]))}
    if members[0].family == "collective":
        link = "nic" if float(members[0].dims["nodes"][0]) > 1 else "nvlink"
        return Part(name=name, kind="network", seconds=seconds, busy={**busy, link: seconds})
    return Part(name=name, kind="memory" if floors[1] > floors[0] else "compute", seconds=seconds, busy=busy)


def solved(case: Case, batches: Sequence[int], seconds: float) -> tuple[list[LayerProblem], OverlapPlan]:
    price, order = price_of(case)
    problems = [make_layer(price, order, CURVES, batches=[1 / n] * n) for n in batches]
    answer = plan_overlap(problems, Effort(limit=100 * seconds, workers=2, wall_s=seconds))
    for problem, plan in zip(problems, answer.plans, strict=True):
        check_modulo_schedule(problem, plan.schedule)
        baselines = (answer.none_s, plan.listed_s, plan.fixed_s)
        assert plan.certificate.bound <= plan.schedule.period_s <= min(baselines) * (1 + 1e-9)
    return problems, answer


def by_second(progress: Sequence[Progress]) -> list[Progress]:
    """The last row of each second."""
    return list({int(row.seconds): row for row in progress}.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="wall seconds a number of nano-batches")
    parser.add_argument("--only", default="", help="cases whose name has this text")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 2, 3], help="numbers of nano-batches")
    parser.add_argument("--progress", action="store_true", help="the gap over time")
    options = parser.parse_args()
    print(
        f"{'layer':52} {'k':>1} {'none':>8} {'fixed 2':>8} {'list':>8} {'planned':>8} {'bound':>8} {'gap':>6} {'s':>5}"
        f" {'simulated':>9}"
    )
    for case in CASES:
        if options.only not in case.name:
            continue
        problems, answer = solved(case, options.batches, options.seconds)
        fixed = min((plan.fixed_s for plan in answer.plans if plan.batches == 2), default=float("inf"))
        for problem, plan in zip(problems, answer.plans, strict=True):
            proof = plan.certificate
            simulated = simulated_period_s(problem, plan.schedule)
            values = (answer.none_s, fixed, plan.listed_s, plan.schedule.period_s, proof.bound)
            columns = " ".join(f"{1e6 * value:8.1f}" for value in values)
            print(
                f"{case.name:52} {plan.batches} {columns} {proof.gap:6.1%} {proof.seconds:5.1f} {1e6 * simulated:9.1f}"
                f" {proof.status}",
                flush=True,
            )
            if options.progress:
                print("    " + ", ".join(f"{row.seconds:.1f} s {row.gap:.1%}" for row in by_second(plan.progress)))
        gain = answer.none_s / answer.schedule.period_s
        best = f"{problems[answer.place].batches} nano-batches, {gain:.2f}x" if answer.overlaps else "do not overlap"
        print(f"{'':52} -> {best}, no schedule of these below {1e6 * answer.certificate.bound:.1f}", flush=True)


if __name__ == "__main__":
    main()
