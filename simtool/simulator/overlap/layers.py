"""Layers as a task graph: the kernels of equal layers, cut and put on streams as an Overlap says."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from simtool.plan import Fusion, Overlap
from simtool.simulator.overlap.kernel import Kernel
from simtool.simulator.tasks.graph import TaskGraph
from simtool.simulator.tasks.task import Resource, Task

Price = Callable[[float], Sequence[Kernel]]  # share of the batch → kernels of one layer, in order


def layer_graph(price: Price, overlap: Overlap, layers: int, resources: Sequence[Resource]) -> TaskGraph:
    """`layers` equal layers, one after the other for each nano-batch."""
    shares = overlap.nano_batches or (1.0,)
    kernels = [list(price(share)) for share in shares]
    cuts = _cuts(kernels[0], overlap)
    tasks: list[Task] = []
    ends: list[tuple[int, ...]] = [() for _ in shares]
    for layer in range(layers):
        batches = [
            _Batch(
                price=price, share=share, overlap=overlap, kernels=own, cuts=cuts, tag=f"L{layer}.{number}", start=end
            )
            for number, (share, own, end) in enumerate(zip(shares, kernels, ends, strict=True))
        ]
        for first, last in _segments(kernels[0], cuts, overlap):
            for batch in batches:
                for place in range(first, last):
                    _emit(batch, place, tasks)
        ends = [_ends(batch) for batch in batches]
    return TaskGraph(resources=tuple(resources), tasks=tuple(tasks))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    """How one kernel is cut. after: chunks follow those of the kernel before it. local: share that goes first."""

    chunks: int = 1
    after: bool = False
    local: float = 0.0
    separate: bool = False
    network: bool = False  # it is a collective of a fusion


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """One nano-batch of one layer while its tasks are made. start: the tasks that ended the layer before."""

    price: Price
    share: float
    overlap: Overlap
    kernels: Sequence[Kernel]
    cuts: Sequence[_Cut]
    tag: str
    start: tuple[int, ...]
    parts: dict[int, list[int]] = field(default_factory=dict)  # kernel → its tasks, in order


def _cuts(kernels: Sequence[Kernel], overlap: Overlap) -> list[_Cut]:
    cuts = [_Cut() for _ in kernels]
    chain = [place for place, kernel in enumerate(kernels) if not kernel.branch]
    for fusion in overlap.fusions:
        for spot, place in enumerate(chain):
            if kernels[place].name != fusion.collective:
                continue
            _cut(cuts, place, fusion, network=True, after=fusion.producer and spot > 0)
            if fusion.producer and spot > 0:
                _cut(cuts, chain[spot - 1], fusion)
            if fusion.consumer and spot + 1 < len(chain):
                _cut(cuts, chain[spot + 1], fusion, after=True, local=fusion.local_first)
    return cuts


def _cut(
    cuts: list[_Cut], place: int, fusion: Fusion, *, after: bool = False, local: float = 0.0, network: bool = False
) -> None:
    old = cuts[place]
    cuts[place] = _Cut(
        chunks=max(old.chunks, fusion.chunks),
        after=old.after or after,
        local=max(old.local, local),
        separate=old.separate or fusion.separate == "kernels" or (network and fusion.separate == "messages"),
        network=old.network or network,
    )


def _stream(kernel: Kernel, cut: _Cut, overlap: Overlap) -> str:
    if kernel.family == "collective" and (overlap.network_stream or cut.network):
        return "network"
    if kernel.family in ("attention_decode", "mla_decode") and overlap.attention_stream:
        return "attention"
    return "branch" if kernel.branch and overlap.branch_stream else "main"


def _segments(kernels: Sequence[Kernel], cuts: Sequence[_Cut], overlap: Overlap) -> list[tuple[int, int]]:
    """Runs of kernels of one stream: nano-batches take turns after each."""
    streams = [_stream(kernel, cut, overlap) for kernel, cut in zip(kernels, cuts, strict=True)]
    starts = [place for place, stream in enumerate(streams) if place == 0 or stream != streams[place - 1]]
    return list(zip(starts, [*starts[1:], len(streams)], strict=True))


def _emit(batch: _Batch, place: int, tasks: list[Task]) -> None:
    """Append the tasks of one kernel."""
    kernel, cut, overlap = batch.kernels[place], batch.cuts[place], batch.overlap
    sizes = [1.0 / cut.chunks] * cut.chunks
    if cut.local > 0:
        sizes = [cut.local, *(size * (1.0 - cut.local) for size in sizes)]
    mine: list[int] = []
    for chunk, size in enumerate(sizes):
        whole = kernel
        if cut.separate and len(sizes) > 1:
            whole, size = batch.price(batch.share * size)[place], 1.0
        waves = len(sizes) == 1 or cut.separate  # chunks of one kernel share its waves
        mine.append(len(tasks))
        alone = kernel.family == "collective" and not overlap.off
        tasks.append(
            Task(
                name=f"{batch.tag}.{kernel.name}" + (f"[{chunk}]" if len(sizes) > 1 else ""),
                stream=_stream(kernel, cut, overlap),
                after=tuple(_before(batch, place, chunk, len(sizes))),
                work=_work(whole, size, overlap, waves=waves),
                latency_s=whole.latency_s if chunk == 0 or cut.separate else 0.0,
                shortest_s=size * (whole.seconds - whole.latency_s),
                holds={"sm": float(overlap.comm_sms)} if alone and overlap.comm_sms else {},
                priority=1 if alone and overlap.compute_first else 0,
                tiles=whole.tiles if waves else 0,
                family=kernel.family,
            )
        )
    batch.parts[place] = mine


def _work(kernel: Kernel, size: float, overlap: Overlap, *, waves: bool) -> dict[str, float]:
    """Work of a chunk; sums that are made in memory save a collective's reads, half of its traffic there.

    Where waves are not counted, the idle part of the kernel's last wave is work too.
    """
    factor = {"hbm": 1.0, "sm": 1.0 if waves else 1.0 / kernel.wave_fill}
    if overlap.reduces_in_memory and kernel.family == "collective":
        factor["hbm"] = 0.5
    return {name: size * units * factor.get(name, 1.0) for name, units in kernel.work.items()}


def _before(batch: _Batch, place: int, chunk: int, chunks: int) -> list[int]:
    """What a chunk waits for: the chunk of the kernel before that it needs, or all of it."""
    kernels, cut = batch.kernels, batch.cuts[place]
    chain = [other for other in range(place) if not kernels[other].branch]
    if kernels[place].branch:
        chain = [other for other in range(place) if kernels[other].branch or kernels[other].name == "norm_mlp"]
    waits = [batch.parts[other][-1] for other in range(place) if kernels[place].joins and kernels[other].branch][-1:]
    if not chain:
        return [*waits, *batch.start]
    parts = batch.parts[chain[-1]]
    if not cut.after:
        return [*waits, parts[-1]]
    if cut.local > 0:
        if chunk == 0:
            return [*waits, *([batch.parts[chain[-2]][-1]] if len(chain) > 1 else batch.start)]
        chunk, chunks = chunk - 1, chunks - 1
    return [*waits, parts[math.ceil((chunk + 1) * len(parts) / chunks) - 1]]


def _ends(batch: _Batch) -> tuple[int, ...]:
    """The tasks that end a layer: the last of the chain and the last of the branch."""
    places = range(len(batch.kernels))
    last = [[place for place in places if batch.kernels[place].branch is branch][-1:] for branch in (False, True)]
    return tuple(batch.parts[place][-1] for found in last for place in found)
