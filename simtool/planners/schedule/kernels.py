"""A layer's kernels as a LayerProblem: which run as one operation, and how fast each is on a share of the device.

The contention is the simulator's (`simulator/overlap/kernel.py`): a kernel's roofline says how much of the
multiprocessors, the memory and the links it needs; on fewer multiprocessors than that it slows in proportion, a large
GEMM by whole waves; its latency shares with nobody. A piece uses its mean over its kernels and their latencies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from simtool.errors import InputError
from simtool.overlaps import STOCK
from simtool.planners.schedule.layer import FULL, LayerProblem, Mode, Operation, Piece
from simtool.simulator.overlap.kernel import Kernel
from simtool.simulator.overlap.layers import Price, branches_before, chain_before
from simtool.simulator.tasks.sharing import wave_share
from simtool.simulator.tasks.task import Resource

DEVICE = "sm"  # the resource whose shares the modes are
_SHARES = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelLayer:
    """A repeating layer of kernels on one device's resources.

    comm_sms: multiprocessors that a collective keeps. grain: kernels that follow each other on one stream join until
    they take this share of the layer, so that small ones make no operations of their own. shares: of the device that a
    piece may get; what the collectives leave is always one of them.
    """

    price: Price
    resources: tuple[Resource, ...]
    comm_sms: int = STOCK["two-batch"].comm_sms
    grain: float = 0.05
    shares: tuple[float, ...] = _SHARES

    def __post_init__(self) -> None:
        if not self.shares or not all(0 < share <= 1 for share in self.shares):
            raise InputError(self.shares, "shares of the device are above 0, up to 1")
        if not 0 <= self.comm_sms < self.rates[DEVICE]:
            raise InputError(self.comm_sms, "collectives keep fewer multiprocessors than there are")

    @property
    def rates(self) -> dict[str, float]:
        """Resource → units a second."""
        return {resource.name: resource.rate for resource in self.resources}

    @property
    def none_s(self) -> float:
        """One kernel after the other."""
        return math.fsum(kernel.seconds for kernel in self.price(1.0))

    def segments(self) -> tuple[tuple[int, ...], ...]:
        """Kernels, by place, that run as one operation: one after the other, of one stream, each in one segment."""
        kernels, found = list(self.price(1.0)), list[list[int]]()
        least = self.grain * self.none_s
        for run in _runs(kernels):
            groups, open_s = [list[int]()], 0.0
            for place in run:
                groups[-1].append(place)
                open_s += kernels[place].seconds
                if open_s >= least:
                    groups, open_s = [*groups, []], 0.0
            if len(groups) > 1:  # what is left is small
                groups[-2:] = [groups[-2] + groups[-1]]
            found += groups
        return tuple(tuple(group) for group in found)

    def problem(self, batches: Sequence[float]) -> LayerProblem:
        """The layer for nano-batches of these shares of the batch.

        An operation runs as one piece, a piece a nano-batch, or in runs of equally many; each piece is priced at its
        own share, so that weights read again and waves that do not fill count.
        """
        if not batches or abs(math.fsum(batches) - 1.0) > 1e-9 or min(batches) <= 0:
            raise InputError(tuple(batches), "shares of nano-batches are above 0 and sum to 1")
        count, kernels, segments = len(batches), list(self.price(1.0)), self.segments()
        sizes = [size for size in range(1, count + 1) if count % size == 0]
        rows = [[tuple(range(start, start + size)) for start in range(0, count, size)] for size in sizes]
        operations = tuple(
            Operation(
                name="+".join(kernels[place].name for place in segment),
                cuts=tuple(tuple(self._piece(segment, own, batches) for own in row) for row in rows),
            )
            for segment in segments
        )
        return LayerProblem(operations=operations, precedences=_order(kernels, segments), batches=count)

    def pieces(self, segment: Sequence[int], served: Sequence[int], batches: Sequence[float]) -> list[Kernel]:
        """Kernels of one piece of a segment, which serves these of the nano-batches."""
        kernels = self.price(round(math.fsum(batches[batch] for batch in served), 12))
        return [kernels[place] for place in segment]

    def slowed(self, kernel: Kernel, share: float) -> float:
        """How many times longer the kernel's work takes on a share of the device, in thousandths."""
        busy, work = kernel.seconds - kernel.latency_s, kernel.work.get(DEVICE, 0.0)
        if kernel.family == "collective" or busy <= 0 or work <= 0:
            return 1.0
        units = self.rates[DEVICE] * share / FULL
        return max(1.0, work / units / (wave_share(kernel.tiles, units) if kernel.tiles else 1.0) / busy)

    def _piece(self, segment: Sequence[int], served: tuple[int, ...], batches: Sequence[float]) -> Piece:
        """A mode for each share of the device that makes it faster, the fastest first."""
        kernels = self.pieces(segment, served, batches)
        kept = self.comm_sms / self.rates[DEVICE]
        shares = {thousandths(share) for share in (*self.shares, 1.0 - kept)}
        if all(kernel.family == "collective" for kernel in kernels):
            shares = {max(1, thousandths(kept))}
        found: list[Mode] = []
        for share in sorted(shares):
            mode = self._mode(kernels, share)
            if not found or mode.seconds < found[0].seconds * (1.0 - 1e-9):
                found.insert(0, mode)
        return Piece(batches=served, modes=tuple(found))

    def _mode(self, kernels: Sequence[Kernel], share: int) -> Mode:
        rates = self.rates
        seconds, busy = 0.0, dict.fromkeys(rates, 0.0)  # seconds of each resource at its rate
        for kernel in kernels:
            own = kernel.latency_s + self.slowed(kernel, share) * (kernel.seconds - kernel.latency_s)
            seconds += own
            for name, units in kernel.work.items():
                busy[name] += units / rates[name]
            if kernel.family == "collective":
                busy[DEVICE] += own * self.comm_sms / rates[DEVICE]
        uses = tuple((name, thousandths(own / seconds)) for name, own in sorted(busy.items()) if own > 0)
        return Mode(seconds=seconds, uses=uses, share=share)


def thousandths(share: float) -> int:
    """Rounded up, within FULL."""
    return min(FULL, math.ceil(share * FULL - 1e-9))


def _runs(kernels: Sequence[Kernel]) -> list[list[int]]:
    """Places of kernels of one stream that follow each other: a collective or an attention is a run of its own."""
    runs: list[list[int]] = []
    before: Kernel | None = None
    for place, kernel in enumerate(kernels):
        fresh = before is None or _alone(kernel) or _alone(before) or kernel.joins or kernel.branch != before.branch
        if fresh:
            runs.append([])
        runs[-1].append(place)
        before = kernel
    return runs


def _alone(kernel: Kernel) -> bool:
    return kernel.family == "collective" or kernel.family.startswith(("attention", "mla"))


def _order(kernels: Sequence[Kernel], segments: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    """(before, after) segments. A branch may begin in the middle of a segment: it waits for all of it."""
    owner = {place: number for number, segment in enumerate(segments) for place in segment}
    edges = {
        (owner[before], owner[place])
        for place in range(len(kernels))
        for before in (*chain_before(kernels, place)[-1:], *branches_before(kernels, place)[-1:])
    }
    return tuple(sorted((before, after) for before, after in edges if before != after))
