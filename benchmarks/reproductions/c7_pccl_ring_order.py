"""C7: PCCL's ring order over measured bandwidths, failing peers, and (asynchronous) DiLoCo.

    python benchmarks/reproductions/c7_pccl_ring_order.py

Inputs: the published 45 Gbit/s in Western Europe and 25 Gbit/s across the Atlantic are taken as the median bandwidth of
a pair; pairs spread around it (lognormal, sigma 0.25, seeded: assumed). So the published numbers are no prediction.
What is checked is what follows from them: the gain of the planned order over the given one, that a failed peer costs
one retry with n - 1, and that asynchronous DiLoCo hides an all-reduce that fits its H inner steps.
"""

from __future__ import annotations

import numpy as np

from simtool.hardware.fabric import wide_area_topology
from simtool.hardware.routes import Router
from simtool.planners.check_network import check_ring
from simtool.planners.ring_order import RingOrder, nearest_neighbour, plan_ring, ring_bottleneck
from simtool.simulator.collectives.collective import Collective, simulate_collective
from simtool.simulator.collectives.diloco import Diloco, DilocoRun, PeerEvent, simulate_diloco
from simtool.simulator.collectives.ring_seconds import ring_seconds

EUROPE, ATLANTIC = 45e9 / 8, 25e9 / 8  # bytes/s, targets.md C7
SIGMA, DELAYS_S = 0.25, (0.01, 0.045)  # assumed: spread of pairs, one-way delay on a shore and across the sea
SIZE = 1e9 * 4  # bytes: fp32 pseudo-gradients of 1e9 parameters
STEP_S, SEEDS = 0.5, 20  # assumed: an inner step


def peers(shores: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Bytes/s and seconds between peers of the given shores, in random order."""
    rng = np.random.default_rng(seed)
    shore = rng.permutation(np.repeat(np.arange(len(shores)), shores))
    same = shore[:, None] == shore
    spread = rng.lognormal(0.0, SIGMA, same.shape)
    return np.where(same, EUROPE, ATLANTIC) * spread, np.where(same, *DELAYS_S)


def bus_gbit(router: Router, ring: tuple[int, ...]) -> float:
    """Gbit/s of an all-reduce as NCCL counts its bus bandwidth: 2(n-1)/n · bytes / seconds."""
    seconds = simulate_collective(router, Collective(kind="all_reduce", size=SIZE, ranks=ring)).makespan_s
    return 2 * (len(ring) - 1) / len(ring) * SIZE / seconds * 8 / 1e9


def orders(name: str, shores: tuple[int, ...]) -> None:
    rows, proven = [], 0
    for seed in range(SEEDS):
        rates, delays = peers(shores, seed)
        router = Router(topology=wide_area_topology(rates, delays))
        plan: RingOrder = plan_ring(rates)
        check_ring(plan.order, rates.tolist(), plan.bottleneck_bytes_per_s)
        proven += plan.certificate.closed
        np.fill_diagonal(rates, 0.0)
        nearest = max(
            (nearest_neighbour(rates, first) for first in range(len(rates))), key=lambda o: ring_bottleneck(rates, o)
        )
        rows.append([bus_gbit(router, ring) for ring in (tuple(range(len(rates))), nearest, plan.order)])
    given, nearest_mean, best = np.mean(rows, axis=0)
    print(
        f"   {name:32} given {given:5.1f}, nearest neighbour {nearest_mean:5.1f}, planned {best:5.1f} Gbit/s;"
        f" proven {proven}/{SEEDS}"
    )


def train(name: str, inner: int, overlap: bool, events: tuple[PeerEvent, ...] = ()) -> DilocoRun:
    rates, delays = peers((4, 4), 0)
    router = Router(topology=wide_area_topology(rates, delays))

    def order(ring: tuple[int, ...]) -> tuple[int, ...]:
        if len(ring) < 3:
            return ring
        plan = plan_ring(rates[np.ix_(ring, ring)])
        return tuple(ring[place] for place in plan.order)

    setup = Diloco(
        peers=tuple(range(8)),
        step_s=dict.fromkeys(range(8), STEP_S),
        inner_steps=inner,
        rounds=20,
        overlap=overlap,
        detect_s=1.0,
    )
    run = simulate_diloco(setup, ring_seconds(router, SIZE), order, events)
    exposed = np.mean([run.exposed_s[peer] for peer in range(8)]) / run.elapsed_s
    retries = sum(r.attempts - 1 for r in run.rounds)
    print(
        f"   {name:28} H {inner:4d}: {run.steps_per_s:6.2f} steps/s, exposed {exposed:6.1%},"
        f" staleness {run.staleness_steps:4d} steps, all-reduce {run.rounds[-1].end_s - run.rounds[-1].start_s:5.2f} s,"
        f" last ring of {len(run.rounds[-1].ring)}, retries {retries}"
    )
    return run


def main() -> None:
    print("1. all-reduce bandwidth by ring order (medians of pairs: 45 Gbit/s on a shore, 25 across, published)")
    orders("Western Europe, 6 peers", (6,))
    orders("Europe and America, 6 + 6", (6, 6))
    orders("Europe and America, 9 + 9", (9, 9))
    print(f"2. DiLoCo, 8 peers on two shores, 20 rounds, inner step {STEP_S} s, {SIZE / 1e9:.0f} GB a round")
    for inner in (1, 5, 50):
        train("synchronous", inner, False)
        train("asynchronous", inner, True)
    print("3. a peer fails during an all-reduce, one more between; one comes back")
    events = (
        PeerEvent(at_s=50 * STEP_S + 0.5, peer=3, kind="fail"),
        PeerEvent(at_s=200.0, peer=5, kind="fail"),
        PeerEvent(at_s=300.0, peer=3, kind="join"),
    )
    train("synchronous, failures", 50, False, events)
    train("asynchronous, failures", 50, True, events)


if __name__ == "__main__":
    main()
