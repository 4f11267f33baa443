"""Groups on nodes, equally many on each: the division whose fullest GPU is best, by branch and bound.

A node with its groups is a problem of its own, and there are far fewer sets of groups than divisions: each set is
bounded once, and balanced once it stands in the division that looks best. The search ends when no division left can
beat the one in hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import combinations, islice

from simtool.planners.experts.search import Balanced

Groups = tuple[int, ...]
MOST_DIVISIONS = 5000  # that are looked at; for any further one only the caller's bound holds
_MOST_SOLVED = 64  # sets of groups that are balanced


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """nodes: the groups of each node, in no particular order. No division has a highest load below `bound`."""

    nodes: tuple[Groups, ...]
    highest: float
    bound: float


def divisions(groups: int, nodes: int) -> Iterator[tuple[Groups, ...]]:
    """All ways to cut groups into equal sets, whatever the order of the sets."""

    def cut(left: Groups) -> Iterator[tuple[Groups, ...]]:
        if not left:
            yield ()
            return
        for others in combinations(left[1:], groups // nodes - 1):
            mine = (left[0], *others)
            for rest in cut(tuple(group for group in left if group not in mine)):
                yield (mine, *rest)

    return cut(tuple(range(groups)))


@dataclass(slots=True, kw_only=True)
class NodeSearch:
    """bound_of, solve: a node's groups → a bound on its highest load; its balanced placement, kept in `solved`.

    near: relative distance to the bound at which a division is good enough.
    """

    bound_of: Callable[[Groups], float]
    solve: Callable[[Groups], Balanced]
    near: float
    bounds: dict[Groups, float] = field(default_factory=dict)
    solved: dict[Groups, Balanced] = field(default_factory=dict)

    def best(self, groups: int, nodes: int, first: tuple[Groups, ...], floor: float) -> Division:
        """first: the division to start from. floor: a bound on divisions beyond those that are looked at."""
        listed = list(islice(divisions(groups, nodes), MOST_DIVISIONS + 1))
        waiting = sorted((self._bound(division), division) for division in listed[:MOST_DIVISIONS])
        best, highest = first, self._reach(first)
        passed = [highest] if len(listed) <= MOST_DIVISIONS else [highest, floor]
        for place, (least, division) in enumerate(waiting):
            if least >= highest * (1 - self.near) or len(self.solved) >= _MOST_SOLVED:
                passed += [self._bound(other) for _, other in waiting[place:]]
                break
            if self._bound(division) < highest * (1 - self.near) and (reached := self._reach(division)) < highest:
                best, highest = division, reached
            passed.append(self._bound(division))
        return Division(nodes=best, highest=highest, bound=min(highest, *passed))

    def _bound(self, division: tuple[Groups, ...]) -> float:
        return max(self._bound_node(node) for node in division)

    def _bound_node(self, node: Groups) -> float:
        if node in self.solved:
            return self.solved[node].bound
        if node not in self.bounds:
            self.bounds[node] = self.bound_of(node)
        return self.bounds[node]

    def _reach(self, division: tuple[Groups, ...]) -> float:
        for node in division:
            if node not in self.solved:
                self.solved[node] = self.solve(node)
        return max(self.solved[node].highest for node in division)
