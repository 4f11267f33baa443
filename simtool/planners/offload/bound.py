"""LeastTime: seconds that no configuration walks a case in, with so many experts in HBM; and what binds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from simtool.planners.offload.case import AHEAD, PINNED, OffloadCase
from simtool.planners.offload.hits import most_kept, most_pinned
from simtool.simulator.offload.prices import Prices

F8 = NDArray[np.float64]
Binding = Literal["link", "GPU", "CPU"]
_SAFE = 1.0 - 1e-9  # of sums in another order than the walk's, and of the linear program's tolerance


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastTime:
    """seconds: of the whole walk, at least. binds: the resource that takes them."""

    seconds: float
    binds: Binding


class Bounds:
    """Least times of cases under policies; hits are reckoned once for each number of slots.

    Of N needs at most K cost no load (`most_kept`, `most_pinned`); the others are loaded, or computed on the CPU where
    the policy may. The link takes load_s for each load; without prefetching nothing is computed meanwhile that comes
    before the gate. The device computes all dense parts, and the needs that are not the CPU's; the CPU its own,
    beside no dense part, with a sync in each visit that it has a part in.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[int, bool, int], int] = {}
        self._held: list[OffloadCase] = []  # so that no other case takes its identity

    def least_time(self, case: OffloadCase, policy: str, slots: int) -> LeastTime:
        """For `slots` experts in HBM, staging included, however they are split and whatever is prefetched."""
        parts = _Parts(case.prices[policy], case)
        kept = self._most(case, policy in PINNED, slots)
        free = int(len(case.needs.objects) - kept)
        if policy == "static-cpu":
            return parts.on_cpu(free, kept)
        if policy == "static-cheaper":
            return parts.cheaper(free, kept)
        return parts.loaded(free, kept, ahead=policy in AHEAD)

    def _most(self, case: OffloadCase, pinned: bool, slots: int) -> int:
        key = (id(case.needs), pinned, slots)
        if key not in self._kept:
            self._held.append(case)
            most: Callable[..., int] = most_pinned if pinned else most_kept
            self._kept[key] = most(case.needs, case.most_slots, slots)
        return self._kept[key]


class _Parts:
    """Sums over a walk. first_s: dense parts, the host's too; expert_s, cpu_s: of a need by tokens; counts: needs."""

    def __init__(self, prices: Prices, case: OffloadCase) -> None:
        steps = case.needs.steps
        self.needs = case.needs
        self.first_s = float(np.broadcast_to(prices.dense_s, (steps, case.layers)).sum())
        self.first_s += float(np.broadcast_to(prices.step_s, steps).sum())
        self.tokens, self.counts = np.unique(case.needs.tokens, return_counts=True)
        self.expert_s = _at(prices.expert_s, self.tokens)
        self.cpu_s = None if prices.cpu_s is None else _at(prices.cpu_s, self.tokens)
        self.load_s, self.sync_s = float(prices.load_s.min()), prices.cpu_sync_s

    @property
    def device_s(self) -> float:
        """All on the device."""
        return self.first_s + float(self.counts @ self.expert_s)

    def broken_visits(self, kept: int) -> int:
        """Visits that at least have a need with a load or on the CPU: those served whole are the smallest at best."""
        sizes = np.sort(np.diff(self.needs.starts))
        return int(len(sizes) - np.searchsorted(np.cumsum(sizes), kept, side="right"))

    def loaded(self, loads: int, kept: int, *, ahead: bool) -> LeastTime:
        """All that is missing comes over the link; without prefetches after a dense part, and what comes last is
        computed after it."""
        link_s = loads * self.load_s
        if not ahead:
            last_s = float(self.expert_s.min()) if len(self.expert_s) else 0.0
            link_s += self.first_s + self.broken_visits(kept) * last_s
        return _longer({"link": link_s, "GPU": self.device_s})

    def on_cpu(self, free: int, kept: int) -> LeastTime:
        """All that is missing is computed on the CPU, with a sync in each visit that lacks any."""
        return self._mixed(free, self.sync_s * self.broken_visits(kept), self.counts, loads=False)

    def cheaper(self, free: int, kept: int) -> LeastTime:
        """What is missing goes where it alone is cheaper, as its tokens decide (either, where it is a near thing)."""
        assert self.cpu_s is not None
        copied_s = self.load_s + self.expert_s
        may_cpu, may_load = self.cpu_s <= copied_s * (1 + 1e-9), self.cpu_s >= copied_s * (1 - 1e-9)
        if not may_load.any():
            return self.on_cpu(free, kept)
        if not may_cpu.any():
            return self.loaded(free, kept, ahead=False)
        return self._mixed(free, 0.0, np.where(may_cpu, self.counts, 0), loads=True)

    def _mixed(self, free: int, more_s: float, most: NDArray[np.int64], *, loads: bool) -> LeastTime:
        """What is missing goes to the CPU, or (loads) over the link too: a linear program in x, the CPU's by tokens.

        minimise T with T >= first + more + device's rest, T >= first + more + the CPU's, 0 <= x <= most, and
        sum x >= free, or with loads T >= first + more + load_s · (free - sum x).
        """
        from scipy.optimize import linprog

        assert self.cpu_s is not None
        first_s, link_s = self.first_s + more_s, self.load_s if loads else 1.0
        rows = np.vstack([-self.expert_s, self.cpu_s, np.full(len(most), -link_s)])
        fixed = np.array([self.device_s + more_s, first_s, free * link_s + (first_s if loads else 0.0)])
        of_time = np.array([1.0, 1.0, 1.0 if loads else 0.0])
        solved = linprog(
            np.concatenate([[1.0], np.zeros(len(most))]),
            A_ub=np.hstack([-of_time[:, None], rows]),
            b_ub=-fixed,
            bounds=[(0.0, None), *((0.0, float(count)) for count in most)],
            method="highs",
        )
        # weak duality: any weights prove a bound, so that the solver need not be believed
        weights = np.maximum(-solved.ineqlin.marginals, 0.0) if solved.success else np.array([1.0, 0.0, 0.0])
        total = float(weights @ of_time)
        weights = weights / total if total > 0 else np.array([1.0, 0.0, 0.0])
        least = float(weights @ fixed + np.minimum(weights @ rows, 0.0) @ most)
        binds: tuple[Binding, ...] = ("GPU", "CPU", "link")
        return LeastTime(seconds=_SAFE * max(least, first_s), binds=binds[int((weights * of_time).argmax())])


def _longer(seconds: dict[Binding, float]) -> LeastTime:
    binds = max(seconds, key=lambda name: seconds[name])
    return LeastTime(seconds=_SAFE * seconds[binds], binds=binds)


def _at(table_s: F8, tokens: NDArray[np.int64]) -> F8:
    """Seconds of a need with each number of tokens, at least: of any layer, beyond the table on its last slope."""
    last = table_s.shape[1] - 1
    slope = table_s[:, last] - table_s[:, last - 1] if last else np.zeros(len(table_s))
    beyond = np.maximum(tokens - last, 0)[None, :] * slope[:, None]
    return np.asarray((table_s[:, np.minimum(tokens, last)] + beyond).min(axis=0))
