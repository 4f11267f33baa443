"""EtsProblem: which leaves of a search tree go on, worth against KV that is not shared (ETS)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from simtool.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class EtsProblem:
    """A tree of N inner nodes and M leaves at one depth.

    parent: inner node above each inner node, -1 for a root, parents first. above: inner node above each leaf.
    shares: children that REBASE gives each leaf. cluster: a leaf's semantic cluster, from 0. The weights λ of KV and of
    coverage are read as the decimals that they print as, so that the objective is a fraction.
    """

    parent: tuple[int, ...]
    above: tuple[int, ...]
    shares: tuple[int, ...]
    cluster: tuple[int, ...]
    kv_weight: float = 1.0
    coverage_weight: float = 1.5

    def __post_init__(self) -> None:
        leaves = len(self.above)
        if not leaves or len(self.shares) != leaves or len(self.cluster) != leaves:
            raise InputError(leaves, "shares and clusters are given for every leaf, and there is one")
        if any(not -1 <= up < node for node, up in enumerate(self.parent)):
            raise InputError(self.parent, "an inner node's parent comes before it", "-1 for a root")
        if any(not -1 <= up < len(self.parent) for up in self.above):
            raise InputError(self.above, "a leaf stands below an inner node", "-1 where it is a root itself")
        if min(self.shares) < 0 or not sum(self.shares) or min(self.cluster) < 0:
            raise InputError(self.shares, "shares and clusters are 0 or more, and some share is above 0")
        if self.kv_weight < 0 or self.coverage_weight < 0:
            raise InputError((self.kv_weight, self.coverage_weight), "weights are 0 or more")

    def path(self, leaf: int) -> tuple[int, ...]:
        """Inner nodes above a leaf, the nearest first."""
        found, node = [], self.above[leaf]
        while node >= 0:
            found.append(node)
            node = self.parent[node]
        return tuple(found)

    @property
    def terms(self) -> tuple[Fraction, Fraction, Fraction]:
        """What one unit of share, one node or leaf that is kept, and one covered cluster are worth."""
        nodes = len(self.parent) + len(self.above)
        return (
            Fraction(1, sum(self.shares)),
            Fraction(str(self.kv_weight)) / nodes,
            Fraction(str(self.coverage_weight)) / len(set(self.cluster)),
        )


def ets_value(problem: EtsProblem, kept: Iterable[int]) -> Fraction:
    """Σ O_i x_i / Σ O − λc/(M+N) (Σ y_j + Σ x_i) + (λs/K) Σ cov_k of some leaves, exactly and without the model.

    InputError: no leaf, or one that there is not. The target states O without a scale; as counts they would outweigh
    any node (keeping all would always be best), so that they are taken as shares of their sum.
    """
    leaves = sorted(set(kept))
    if not leaves or leaves[0] < 0 or leaves[-1] >= len(problem.above):
        raise InputError(leaves, "keeps at least one leaf, and only leaves of the tree")
    worth, cost, coverage = problem.terms
    nodes = {node for leaf in leaves for node in problem.path(leaf)}
    clusters = {problem.cluster[leaf] for leaf in leaves}
    shares = sum(problem.shares[leaf] for leaf in leaves)
    return shares * worth - (len(nodes) + len(leaves)) * cost + len(clusters) * coverage
