"""Ring collectives. At constant rates the slowest neighbours set the pace of a ring, so that it can be one task.

Step s of an edge needs its own step s - 1 and that of the edge before it. The longest such chain stays on the slowest
edge: steps · (latency + bytes/rate) of that edge, as if every edge went at its pace.
"""

from __future__ import annotations

from collections.abc import Sequence

from simtool.simulator.collectives.draft import Draft, Send

ROUNDS = {"all_reduce": 2, "all_gather": 1, "reduce_scatter": 1}


def rail_rings(members: Sequence[Sequence[int]], count: int) -> list[list[int]]:
    """`count` rings over the ranks of each host (equally many), that leave and enter a host by different rails.

    Odd hosts are walked backwards, so that a ring leaves a host on the rail by which it enters the next.
    """
    rings = []
    for ring in range(count):
        order: list[int] = []
        for place, ranks in enumerate(members):
            shift = ring % len(ranks)
            turned = [*ranks[shift:], *ranks[:shift]]
            order += reversed(turned) if place % 2 else turned
        rings.append(order)
    return rings


def neighbours(order: Sequence[int], amount: float) -> list[Send]:
    """Each rank of the ring to the next."""
    return [(rank, order[(place + 1) % len(order)], amount) for place, rank in enumerate(order)]


def add_ring(
    draft: Draft,
    orders: Sequence[Sequence[int]],
    amount: float,
    rounds: int,
    *,
    after: Sequence[int] = (),
    lanes: int = 1,
) -> list[int]:
    """One task a ring; the rings share `amount` bytes (as nccl-tests count) evenly. Returns the last tasks."""
    ends = []
    for order in orders:
        steps = rounds * (len(order) - 1)
        sends = neighbours(order, steps * amount / len(orders) / len(order))
        ends.append(draft.add("ring", sends, after=after, rounds=steps, lanes=lanes * len(orders)))
    return ends


def add_stepped_ring(draft: Draft, orders: Sequence[Sequence[int]], amount: float, rounds: int) -> list[int]:
    """The same, with one task a step and rank: the reference. rounds · n · (n - 1) tasks a ring."""
    ends = []
    for ring, order in enumerate(orders):
        before: list[int] = []
        for step in range(rounds * (len(order) - 1)):
            now = []
            for place, send in enumerate(neighbours(order, amount / len(orders) / len(order))):
                arrived = [before[place - 1], before[place]] if before else []
                stream = f"ring{ring}.{draft.first}.{send[0]}"
                now.append(draft.add(f"step {step}", [send], after=arrived, stream=stream, lanes=len(orders)))
            before = now
        ends += before
    return ends
