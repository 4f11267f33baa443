"""Layers as a task graph: the kernels of equal layers, cut and put on streams as an Overlap says."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from simtool.errors import InputError
from simtool.plan import Fusion, Overlap
from simtool.simulator.overlap.kernel import Kernel
from simtool.simulator.overlap.kv_transfer import KV_TRANSFER, without_transfers
from simtool.simulator.tasks.graph import TaskGraph
from simtool.simulator.tasks.sharing import wave_share
from simtool.simulator.tasks.task import Resource, Task

Price = Callable[[float], Sequence[Kernel]]  # share of the batch → kernels of one layer, in order; last what it sends
_ATTENTION = ("attention_prefill", "attention_decode", "mla_prefill", "mla_decode", "recurrent")


def layer_graph(price: Price, overlap: Overlap, layers: int, resources: Sequence[Resource]) -> TaskGraph:
    """`layers` equal layers, one after the other for each nano-batch, and what they send to another pool."""
    shares = overlap.nano_batches or (1.0,)
    priced = [list(price(share)) for share in shares]
    kernels = [without_transfers(own) for own in priced]
    sent = [[kernel for kernel in own if kernel.family == KV_TRANSFER] for own in priced]
    left = _sms_left(overlap, resources)
    cuts = _cuts(kernels[0], overlap, left)
    tasks: list[Task] = []
    ends: list[tuple[int, ...]] = [() for _ in shares]
    for layer in range(layers):
        batches = [
            _Batch(
                price=price,
                share=share,
                overlap=overlap,
                left=left,
                kernels=own,
                cuts=cuts,
                tag=f"L{layer}.{number}",
                start=end,
            )
            for number, (share, own, end) in enumerate(zip(shares, kernels, ends, strict=True))
        ]
        for first, last in _segments(kernels[0], cuts, overlap):
            for batch in batches:
                for place in range(first, last):
                    _emit(batch, place, tasks)
        if overlap.kv_transfer == "layers":
            for batch, own in zip(batches, sent, strict=True):
                _send(own, 1, f"{batch.tag}.", _written(batch), tasks)
        ends = [_ends(batch) for batch in batches]
    if overlap.kv_transfer == "whole":
        _send([kernel for own in sent for kernel in own], layers, "", tuple(end for own in ends for end in own), tasks)
    return TaskGraph(resources=tuple(resources), tasks=tuple(tasks))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    """How one kernel is cut. shares: of its chunks, in order. after: they follow those of the kernel before it.

    local: share that goes first. last: share that goes last and that the collective does not send. separate: chunks
    are kernels of their own. aligned: they are whole waves. network: it is a collective of a fusion.
    """

    shares: tuple[float, ...] = (1.0,)
    after: bool = False
    local: float = 0.0
    last: float = 0.0
    separate: bool = False
    aligned: bool = False
    network: bool = False

    @property
    def sizes(self) -> list[float]:
        """Shares of all chunks, the local ones too."""
        first, last = [self.local] if self.local else [], [self.last] if self.last else []
        return [*first, *(share * (1.0 - self.local - self.last) for share in self.shares), *last]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """One nano-batch of one layer while its tasks are made. start: the tasks that ended the layer before.

    left: multiprocessors that collectives leave.
    """

    price: Price
    share: float
    overlap: Overlap
    left: float
    kernels: Sequence[Kernel]
    cuts: Sequence[_Cut]
    tag: str
    start: tuple[int, ...]
    parts: dict[int, list[int]] = field(default_factory=dict)  # kernel → its tasks, in order


def _sms_left(overlap: Overlap, resources: Sequence[Resource]) -> float:
    """Multiprocessors beside a collective. InputError where none are left."""
    left = math.fsum(resource.rate for resource in resources if resource.name == "sm") - overlap.comm_sms
    if overlap.comm_sms and left <= 0:
        raise InputError(overlap.comm_sms, "multiprocessors for collectives leave none", "fewer than the device has")
    return left


def _cuts(kernels: Sequence[Kernel], overlap: Overlap, left: float) -> list[_Cut]:
    cuts = [_Cut() for _ in kernels]
    chain = [place for place, kernel in enumerate(kernels) if not kernel.branch]
    for fusion in overlap.fusions:
        for spot, place in enumerate(chain):
            if kernels[place].name != fusion.collective:
                continue
            sends = fusion.producer and spot > 0
            shares = (1.0 / fusion.chunks,) * fusion.chunks
            if fusion.waves:
                shares = _wave_shares(fusion.waves, kernels[chain[spot - 1]].tiles if sends else 0, left)
            _cut(cuts, place, fusion, shares, _Cut(network=True, after=sends))
            if sends:
                _cut(cuts, chain[spot - 1], fusion, shares, _Cut(last=fusion.local_last, aligned=bool(fusion.waves)))
            if fusion.consumer and spot + 1 < len(chain):
                _cut(cuts, chain[spot + 1], fusion, shares, _Cut(after=True, local=fusion.local_first))
    return cuts


def _wave_shares(waves: Sequence[int], tiles: int, left: float) -> tuple[float, ...]:
    """Shares of `tiles` in groups of waves of `left` tiles; the last wave may be short. InputError unless they fit."""
    whole = math.ceil(tiles / left)
    if min(waves) < 1 or sum(waves) != whole:
        raise InputError(waves, f"must be groups of the {whole} waves of the kernel before the collective")
    ends = [min(float(tiles), left * last) for last in accumulate(waves)]
    return tuple((end - start) / tiles for start, end in pairwise([0.0, *ends]))


def _cut(cuts: list[_Cut], place: int, fusion: Fusion, shares: tuple[float, ...], new: _Cut) -> None:
    """Cut a kernel that other fusions may have cut already."""
    old = cuts[place]
    apart = fusion.separate == "kernels" or (new.network and fusion.separate == "messages")
    cuts[place] = _Cut(
        shares=max(old.shares, shares, key=len),
        after=old.after or new.after,
        local=max(old.local, new.local),
        last=max(old.last, new.last),
        separate=old.separate or apart,
        aligned=old.aligned or new.aligned,
        network=old.network or new.network,
    )


def _send(kernels: Sequence[Kernel], times: int, tag: str, after: tuple[int, ...], tasks: list[Task]) -> None:
    """Append one message of what `kernels` send, `times` over. Messages queue for the link; their latencies do not."""
    if not kernels:
        return
    latency_s = max(kernel.latency_s for kernel in kernels)
    seconds = times * math.fsum(kernel.seconds - kernel.latency_s for kernel in kernels)
    work = {name: times * math.fsum(kernel.work[name] for kernel in kernels) for name in kernels[0].work}
    posted = len(tasks)
    tasks += [
        Task(name=f"{tag}kv_transfer.post", after=after, latency_s=latency_s, family=KV_TRANSFER),
        Task(
            name=f"{tag}kv_transfer",
            stream=KV_TRANSFER,
            after=(posted,),
            work=work,
            shortest_s=seconds,
            family=KV_TRANSFER,
        ),
    ]


def _written(batch: _Batch) -> tuple[int, ...]:
    """What a layer's KV waits for to be sent: its attention (Mooncake, vLLM `save_kv_layer`)."""
    places = [place for place, kernel in enumerate(batch.kernels) if kernel.family in _ATTENTION]
    return tuple(batch.parts[place][-1] for place in places)


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
    first, sizes = len(tasks), batch.cuts[place].sizes
    tasks += [_task(batch, place, chunk, sizes) for chunk in range(len(sizes))]
    batch.parts[place] = list(range(first, len(tasks)))


def _task(batch: _Batch, place: int, chunk: int, sizes: Sequence[float]) -> Task:
    """One chunk of a kernel."""
    kernel, cut, overlap, size = batch.kernels[place], batch.cuts[place], batch.overlap, sizes[chunk]
    cutting, whole = len(sizes) > 1, kernel
    if cut.separate and cutting:
        whole, size = batch.price(batch.share * size)[place], 1.0
    beside = kernel.family == "collective" and not overlap.off
    slower = max(1.0, overlap.full_comm_sms / overlap.comm_sms) if beside and overlap.comm_sms else 1.0
    waves = not cutting or cut.separate or cut.aligned  # other chunks of one kernel share its waves
    work = _work(whole, size, overlap, waves=waves, slower=slower)
    shortest_s = size * (whole.seconds - whole.latency_s) * slower
    if cut.aligned:  # a short last wave takes as long as a full one: that is counted with the tiles
        shortest_s *= whole.wave_fill
    tiles = round(size * whole.tiles) if waves else 0
    if (cutting or cut.aligned) and overlap.fixed_sms and not (cut.network or cut.separate):
        share = wave_share(tiles, batch.left) if tiles else 1.0
        shortest_s = max(shortest_s, work.get("sm", 0.0) / (batch.left * share))
    return Task(
        name=f"{batch.tag}.{kernel.name}" + (f"[{chunk}]" if cutting else ""),
        stream=_stream(kernel, cut, overlap),
        after=tuple(_before(batch, place, chunk, len(sizes))),
        work=work,
        latency_s=whole.latency_s if chunk == 0 or cut.separate else 0.0,
        shortest_s=shortest_s,
        holds={"sm": float(overlap.comm_sms)} if beside and overlap.comm_sms else {},
        priority=1 if beside and overlap.compute_first else 0,
        tiles=tiles,
        family=kernel.family,
    )


def _work(kernel: Kernel, size: float, overlap: Overlap, *, waves: bool, slower: float) -> dict[str, float]:
    """Work of a chunk. slower: factor on the time that a collective needs its link.

    Where waves are not counted, the idle part of the kernel's last wave is work too.
    """
    factor = {"hbm": 1.0, "sm": 1.0 if waves else 1.0 / kernel.wave_fill, "nvlink": slower, "nic": slower}
    if overlap.reduces_in_memory:
        factor["hbm"] = 1.0 - kernel.sum_share
    return {name: size * units * factor.get(name, 1.0) for name, units in kernel.work.items()}


def _before(batch: _Batch, place: int, chunk: int, chunks: int) -> list[int]:
    """What a chunk waits for: the chunk of the kernel before that it needs, or all of it."""
    kernels, cut = batch.kernels, batch.cuts[place]
    chain = chain_before(kernels, place)
    waits = [batch.parts[other][-1] for other in branches_before(kernels, place)[-1:]]
    if not chain:
        return [*waits, *batch.start]
    if not cut.after:
        return [*waits, *_done(batch, chain)]
    if cut.local > 0:
        if chunk == 0:
            return [*waits, *(_done(batch, chain[:-1]) or batch.start)]
        chunk, chunks = chunk - 1, chunks - 1
    sent = batch.parts[chain[-1]][: -1 if batch.cuts[chain[-1]].last else None]
    needs = sent[math.ceil((chunk + 1) * len(sent) / chunks) - 1]
    return [*waits, needs] if cut.network or chunk + 1 < chunks else [*waits, *_done(batch, chain)]


def _done(batch: _Batch, chain: Sequence[int]) -> list[int]:
    """The tasks that end a chain: the last kernel's, and what the one before it computes and sends to nobody."""
    kept = [place for place in chain[-2:-1] if batch.cuts[place].last]
    return [batch.parts[place][-1] for place in (*kept, *chain[-1:])]


def chain_before(kernels: Sequence[Kernel], place: int) -> list[int]:
    """Places of the kernels that come before one, the nearest last: a branch begins after the norm of its input."""
    if kernels[place].branch:
        return [other for other in range(place) if kernels[other].branch or kernels[other].name == "norm_mlp"]
    return [other for other in range(place) if not kernels[other].branch]


def branches_before(kernels: Sequence[Kernel], place: int) -> list[int]:
    """Places of the branch that a kernel joins, the last one last; none where it joins none."""
    return [other for other in range(place) if kernels[place].joins and kernels[other].branch]


def _ends(batch: _Batch) -> tuple[int, ...]:
    """The tasks that end a layer: the last of the chain and the last of the branch."""
    places = range(len(batch.kernels))
    main, branch = ([place for place in places if batch.kernels[place].branch is which] for which in (False, True))
    return (*_done(batch, main), *(batch.parts[place][-1] for place in branch[-1:]))
