"""C8: bubbles of pipeline schedules, published formulas beside simulated schedules.

    python benchmarks/reproductions/c8_pipeline_bubbles.py

Nothing is fitted. The formulas (DeepSeek-V3, arXiv 2412.19437, table 2) suppose passes that fit into each other
(F = W = B/2): there they are met exactly. The other rows show what the same orders wait where passes are not equal.
"""

from __future__ import annotations

from simtool.simulator.overlap.dualpipe import dual_pipe
from simtool.simulator.overlap.pipeline import (
    Orders,
    PassTimes,
    bubble_s,
    interleaved,
    one_f_one_b,
    pipeline_graph,
    zero_bubble,
)
from simtool.simulator.tasks.simulate import simulate_tasks

TIMES = (
    PassTimes(forward_s=1.0, backward_s=2.0, weight_s=1.0, both_s=3.0),
    PassTimes(forward_s=1.0, backward_s=2.0, weight_s=1.0, both_s=2.5),
    PassTimes(forward_s=1.0, backward_s=2.2, weight_s=1.0, both_s=2.6),
    PassTimes(forward_s=1.5, backward_s=3.0, weight_s=1.4, both_s=4.0),
)
SIZES = ((4, 8), (8, 20), (16, 64))


def rows(ranks: int, batches: int, times: PassTimes) -> list[tuple[str, float, Orders]]:
    """(schedule, published bubble, order of passes)."""
    forward, backward, weight, both = times.forward_s, times.backward_s, times.weight_s, times.both_s
    return [
        ("1F1B", (ranks - 1) * (forward + backward), one_f_one_b(ranks, batches)),
        ("1F1B, 2 parts", (ranks - 1) * (forward + backward), interleaved(ranks, batches // ranks * ranks, 2)),
        ("zero-bubble", (ranks - 1) * (forward + backward - 2 * weight), zero_bubble(ranks, batches)),
        ("DualPipe", (ranks / 2 - 1) * (both + backward - 3 * weight), dual_pipe(ranks, batches)),
    ]


def main() -> None:
    """Print the table; parts of an interleaved schedule take whole passes' times, so that its formula is 1F1B's."""
    heads = f"{'schedule':14} {'published':>9} {'ours':>7} {'error':>7}"
    print(f"{'F':>4} {'B':>4} {'W':>4} {'F&B':>4} {'PP':>3} {'batches':>7} {heads}")
    for times in TIMES:
        for ranks, batches in SIZES:
            for name, published, orders in rows(ranks, batches, times):
                found = bubble_s(simulate_tasks(pipeline_graph(orders, times)))
                passes = f"{times.forward_s:4} {times.backward_s:4} {times.weight_s:4} {times.both_s:4}"
                said = f"{published:9.2f} {found:7.2f} {found / published - 1:7.1%}"
                print(f"{passes} {ranks:3} {batches:7} {name:14} {said}")


if __name__ == "__main__":
    main()
