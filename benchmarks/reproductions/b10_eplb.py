"""B10: EPLB's greedy on its own example, and the placement that an exact search finds for it.

    python benchmarks/reproductions/b10_eplb.py

Nothing is fitted. Part 1: the map that EPLB's README prints, slot by slot. Part 2: the highest load of a GPU, by the
greedy (published in the targets) and by `place_experts`, with its proof, global and hierarchical.
"""

from __future__ import annotations

import numpy as np

from simtool.planners.experts.greedy import greedy_placement
from simtool.planners.experts.plan import ExpertPlan, place_experts
from simtool.planners.experts.problem import ExpertProblem

LOADS = np.array(
    [
        [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
        [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
    ],
    np.float64,
)
REPLICAS, GROUPS, NODES, GPUS = 16, 4, 2, 8
PUBLISHED_MAP = (
    (5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1),
    (7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1),
)
# (layer, hierarchical): (published greedy, published best); the targets give no best for the hierarchical policy
PUBLISHED = {(0, False): (138.5, 136.0), (0, True): (156.0, None), (1, False): (172.0, 172.0), (1, True): (179.5, None)}


def planned(hierarchical: bool) -> ExpertPlan:
    groups, nodes = (GROUPS, NODES) if hierarchical else (1, 1)
    problem = ExpertProblem(
        loads=LOADS, gpus=GPUS, slots=REPLICAS // GPUS, groups=groups, nodes=nodes, hierarchical=hierarchical
    )
    return place_experts(problem)


def wrong_slots() -> int:
    """Slots in which our greedy differs from EPLB's printed map."""
    return int((greedy_placement(LOADS, REPLICAS, GROUPS, NODES, GPUS) != np.array(PUBLISHED_MAP)).sum())


def main() -> None:
    print(f"EPLB's map: {wrong_slots()} of {2 * REPLICAS} slots differ")
    heads = ("layer", "policy", "published", "greedy", "error", "published best", "planned", "bound", "proof")
    print("{:>5} {:12} {:>9} {:>7} {:>6} {:>14} {:>7} {:>7} {}".format(*heads))
    for hierarchical in (False, True):
        for layer, one in enumerate(planned(hierarchical).layers):
            greedy, best = PUBLISHED[layer, hierarchical]
            ours = one.greedy_measures.highest_load
            policy = "hierarchical" if hierarchical else "global"
            said = f"{best:14.1f}" if best else f"{'-':>14}"
            proof = f"{one.load.objective:7.1f} {one.load.bound:7.1f} {one.load.status} in {one.load.seconds:.1f} s"
            print(f"{layer:5} {policy:12} {greedy:9.1f} {ours:7.1f} {ours / greedy - 1:6.1%} {said} {proof}")


if __name__ == "__main__":
    main()
