"""C5: DeepEP's low-latency dispatch on H800, microseconds by expert-parallel size.

    python benchmarks/reproductions/c5_deepep_low_latency.py

Mechanism: every rank sends each token to the rank of each of its experts, NVLink inside a node of eight, one 400 Gb/s
NIC a GPU beyond it, both at once; a port is shared fairly. All rates and latencies are the catalogue's (H800, NDR, with
the efficiencies of `LINK_EFFICIENCY`). One parameter is fitted, on the row EP 8: the seconds that a call costs beside
its transfer (launch, FP8 cast, waiting for the counts). All other rows are predicted blind, and so is the combine.
Experts are chosen at random; "even" has the average traffic, "random" draws it (mean over ranks of when all that a rank
sends and receives is there), which is simulated flow by flow and so only for up to 32 ranks. Switches spread packets
over equal paths (InfiniBand's adaptive routing, which DeepEP supports for these kernels); "hashed" has static routes.
"""

from __future__ import annotations

import numpy as np

from simtool.hardware.cluster import parse_cluster
from simtool.hardware.fabric import cluster_topology
from simtool.hardware.routes import Router
from simtool.simulator.collectives.collective import collective_graph, simulate_experts
from simtool.simulator.collectives.direct import add_direct
from simtool.simulator.collectives.draft import Draft, SendCosts
from simtool.simulator.collectives.routing_traffic import even_traffic, routed_traffic
from simtool.simulator.tasks.simulate import simulate_tasks

PUBLISHED_US = {8: 77, 16: 118, 32: 155, 64: 173, 128: 192, 256: 194}  # targets.md C5
FITTED_ROW = 8
TOKENS, CHOSEN, HIDDEN, EXPERTS = 128, 8, 7168, 256
# FP8 values, an fp32 scale for every 128 of them, and a 16-byte header with the token's source
DISPATCH_BYTES = HIDDEN + HIDDEN // 128 * 4 + 16
COMBINE_BYTES = HIDDEN * 2  # BF16
SEED = 0


def router_of(ranks: int, spread: bool = True) -> Router:
    return Router(topology=cluster_topology(parse_cluster(f"{ranks // 8}x8xh800")), spread=spread)


def even_s(ranks: int, token_bytes: float, call_s: float, spread: bool = True) -> float:
    router = router_of(ranks, spread)
    traffic = even_traffic(router.topology.hosts, TOKENS, CHOSEN, token_bytes)
    return simulate_experts(router, range(ranks), traffic, costs=SendCosts(call_s=call_s)).makespan_s


def random_s(ranks: int, token_bytes: float, call_s: float) -> float:
    """Mean over ranks of when all that a rank sends and receives is there."""
    router, rng = router_of(ranks), np.random.default_rng(SEED)
    choice = rng.random((ranks, TOKENS, EXPERTS)).argpartition(CHOSEN, axis=2)[:, :, :CHOSEN]
    traffic = routed_traffic(choice, EXPERTS, router.topology.hosts, token_bytes, per_expert=True)
    draft = Draft(router=router, costs=SendCosts(call_s=call_s))
    add_direct(draft, range(ranks), traffic.to_rank, stepped=True)
    pairs = [(s, t) for s in range(ranks) for t in range(ranks) if s != t and traffic.to_rank[s, t] > 0]
    ends, ready = simulate_tasks(collective_graph(draft)).end_s, np.zeros(ranks)
    for (source, target), end in zip(pairs, ends, strict=True):
        ready[[source, target]] = np.maximum(ready[[source, target]], end)
    return float(ready.mean())


def main() -> None:
    call_s = PUBLISHED_US[FITTED_ROW] * 1e-6 - even_s(FITTED_ROW, DISPATCH_BYTES, 0.0)
    print(f"fitted on EP {FITTED_ROW}: {call_s * 1e6:.1f} us a call beside transfers")
    print(
        f"{'EP':>4} {'published':>9} {'even':>7} {'error':>7} {'random':>7} {'error':>7} {'hashed':>7}"
        f" {'combine':>8}   us"
    )
    errors = []
    for ranks, published in PUBLISHED_US.items():
        even = even_s(ranks, DISPATCH_BYTES, call_s) * 1e6
        row = f"{ranks:4d} {published:9d} {even:7.1f} {even / published - 1:+7.1%}"
        if ranks <= 32:
            drawn = random_s(ranks, DISPATCH_BYTES, call_s) * 1e6
            row += f" {drawn:7.1f} {drawn / published - 1:+7.1%}"
        else:
            row += f" {'-':>7} {'-':>7}"
        row += f" {even_s(ranks, DISPATCH_BYTES, call_s, spread=False) * 1e6:7.1f}"
        print(f"{row} {even_s(ranks, COMBINE_BYTES, call_s) * 1e6:8.1f}" + "  (fitted)" * (ranks == FITTED_ROW))
        if ranks != FITTED_ROW:
            errors.append(abs(even / published - 1))
    print(f"blind rows (even): mean |error| {np.mean(errors):.1%}, worst {np.max(errors):.1%}")


if __name__ == "__main__":
    main()
