"""Double binary tree all-reduce: each tree reduces half of the buffer upwards and broadcasts it, in chunks."""

from __future__ import annotations

from collections.abc import Sequence

from simtool.simulator.collectives.draft import Draft


def tree_parents(count: int) -> list[int]:
    """Parent of each position, -1 for the root (0): the binary tree of NCCL (src/graph/trees.cc, ncclGetBtree)."""
    parents = [-1]
    for place in range(1, count):
        bit = place & -place
        up = (place ^ bit) | (bit << 1)
        parents.append(up if up < count else place ^ bit)
    return parents


def tree_depth(parents: Sequence[int]) -> int:
    """Edges between the root and the deepest position."""
    depths = []
    for place in range(len(parents)):
        depth, at = 0, place
        while parents[at] >= 0:
            at, depth = parents[at], depth + 1
        depths.append(depth)
    return max(depths)


def add_tree(draft: Draft, ranks: Sequence[int], amount: float) -> list[int]:
    """Both trees as one task: the limit of many chunks, in which every edge is busy both ways all the time."""
    parents = tree_parents(len(ranks))
    sends = []
    for tree in (ranks, _turned(ranks)):
        for place, parent in enumerate(parents):
            if parent >= 0:
                sends += [(tree[place], tree[parent], amount / 2), (tree[parent], tree[place], amount / 2)]
    return [draft.add("tree", sends, rounds=2 * tree_depth(parents))]


def add_stepped_tree(draft: Draft, ranks: Sequence[int], amount: float, chunks: int) -> list[int]:
    """One task a chunk, edge and direction: 4 · (n - 1) · chunks tasks. Chunks fill and drain the tree."""
    ends: list[int] = []
    for tree, order in enumerate((ranks, _turned(ranks))):
        for chunk in range(chunks):
            ends += _one_chunk(draft, order, amount / 2 / chunks, f"{draft.first}.{tree}", chunk)
    return ends


def _one_chunk(draft: Draft, order: Sequence[int], size: float, label: str, chunk: int) -> list[int]:
    """Up, where children come before their parent; then down, where the parent comes first."""
    parents = tree_parents(len(order))
    children: list[list[int]] = [[] for _ in parents]
    for place, parent in enumerate(parents):
        if parent >= 0:
            children[parent].append(place)
    line = [0]
    for place in line:
        line += children[place]
    arrived: dict[int, int] = {}  # place → the task that brought its part to its parent
    for place in reversed(line[1:]):
        before = [arrived[child] for child in children[place]]
        send = (order[place], order[parents[place]], size)
        arrived[place] = draft.add(f"up {chunk}", [send], after=before, stream=f"up{label}.{place}")
    reduced = [arrived[child] for child in children[0]]
    down: dict[int, list[int]] = {0: reduced}
    for place in line[1:]:
        send = (order[parents[place]], order[place], size)
        down[place] = [draft.add(f"down {chunk}", [send], after=down[parents[place]], stream=f"down{label}.{place}")]
    return [task for place in line[1:] for task in down[place]]


def _turned(ranks: Sequence[int]) -> list[int]:
    """Shifted by one, so that a rank that forwards in one tree is a leaf in the other."""
    return [*ranks[1:], ranks[0]]
