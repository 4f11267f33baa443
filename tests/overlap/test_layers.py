"""Layers as task graphs: no overlap is the plain sum; every overlap stays between the bounds and does the same work."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.errors import InputError
from simtool.overlaps import STOCK
from simtool.plan import Fusion, Overlap
from simtool.simulator.overlap.kernel import Kernel
from simtool.simulator.overlap.layers import layer_graph
from simtool.simulator.tasks.bounds import graph_bounds
from simtool.simulator.tasks.simulate import simulate_tasks
from simtool.simulator.tasks.task import Resource

RESOURCES = tuple(Resource(name=name, rate=rate) for name, rate in (("sm", 100.0), ("hbm", 1.0), ("nvlink", 1.0)))


def gemm(name, seconds, share=1.0, **flags):
    return Kernel(
        name=name, family="gemm", seconds=share * seconds, latency_s=0.0, work={"sm": 100 * share * seconds}, **flags
    )


def reduce(name, seconds, latency, share=1.0):
    busy = share * (seconds - latency)
    return Kernel(name=name, family="collective", seconds=busy + latency, latency_s=latency, work={"nvlink": busy})


def layer(share):
    """A dense layer that is half communication, with linear kernels."""
    return (
        gemm("qkv", 2.0, share),
        Kernel(name="attention_decode", family="attention_decode", seconds=share, latency_s=0.0, work={"hbm": share}),
        gemm("o", 1.0, share),
        reduce("attention_all_reduce", 2.0, 0.1, share),
        gemm("norm_mlp", 0.5, share),
        gemm("down", 2.5, share),
        reduce("mlp_all_reduce", 2.0, 0.1, share),
    )


def mixture(share):
    """A mixture layer with a branch of shared experts."""
    return (
        gemm("norm_mlp", 1.0, share),
        reduce("moe_dispatch", 2.0, 0.2, share),
        gemm("shared_up", 1.5, share, branch=True),
        gemm("experts_up", 2.0, share),
        gemm("experts_down", 1.0, share),
        reduce("moe_combine", 2.0, 0.2, share),
        gemm("mlp_last", 0.5, share, joins=True),
    )


def run(price, overlap, layers=3):
    return simulate_tasks(layer_graph(price, overlap, layers, RESOURCES))


@pytest.mark.parametrize("price", [layer, mixture])
def test_no_overlap_is_the_sum_of_the_kernels(price):
    whole = 3 * math.fsum(kernel.seconds for kernel in price(1.0))
    assert run(price, Overlap()).makespan_s == pytest.approx(whole, rel=1e-12)
    assert Overlap().off


@pytest.mark.parametrize("separate", ["", "messages", "kernels"])
def test_one_chunk_is_no_overlap(separate):
    one = Overlap(fusions=(Fusion(collective="mlp_all_reduce", chunks=1, separate=separate),))
    assert run(layer, one).makespan_s == run(layer, Overlap()).makespan_s


@pytest.mark.parametrize("name", STOCK)
@pytest.mark.parametrize("price", [layer, mixture])
def test_stock_overlaps_stay_between_their_bounds(price, name):
    graph = layer_graph(price, STOCK[name], 3, RESOURCES)
    bounds, found = graph_bounds(graph), simulate_tasks(graph)
    assert bounds.lower_s <= found.makespan_s * (1 + 1e-9)
    if not STOCK[name].comm_sms:
        assert found.makespan_s <= bounds.serial_s * (1 + 1e-9)


def test_signalled_chunks_follow_the_pipeline_formula():
    """GEMM of 4 then a reduce of 4 in 4 chunks: the reduce ends one chunk after the GEMM (FlashOverlap)."""
    price = lambda share: (gemm("o", 4.0, share), reduce("attention_all_reduce", 4.0, 0.0, share))  # noqa: E731
    fused = Overlap(fusions=(Fusion(collective="attention_all_reduce", chunks=4),))
    assert run(price, fused, layers=1).makespan_s == pytest.approx(5.0)


def test_each_message_of_its_own_pays_its_latency():
    """A message takes longer than the chunk it follows: they queue behind the first chunk."""
    price = lambda share: (gemm("o", 4.0, share), reduce("attention_all_reduce", 1.4, 1.0, share))  # noqa: E731
    fused = Overlap(fusions=(Fusion(collective="attention_all_reduce", chunks=4, separate="messages"),))
    assert run(price, fused, layers=1).makespan_s == pytest.approx(1.0 + 4 * (1.0 + 0.1))


def test_local_rows_go_first():
    """Half of the consumer needs nobody: it runs beside the exchange."""
    price = lambda share: (gemm("norm_mlp", 1.0, share), reduce("moe_dispatch", 2.0, 0.0), gemm("experts_up", 4.0))  # noqa: E731
    waits = Fusion(collective="moe_dispatch", chunks=1, producer=False, consumer=True)
    first = Fusion(collective="moe_dispatch", chunks=1, producer=False, consumer=True, local_first=0.5)
    assert run(price, Overlap(fusions=(waits,)), layers=1).makespan_s == pytest.approx(7.0)
    assert run(price, Overlap(fusions=(first,)), layers=1).makespan_s == pytest.approx(5.0)


def test_two_batches_hide_communication_under_the_other_ones_compute():
    two = Overlap(nano_batches=(0.5, 0.5), network_stream=True)
    many, few = run(layer, two, layers=8).makespan_s, run(layer, two, layers=4).makespan_s
    assert (many - few) / 4 == pytest.approx(7.0, rel=0.02)  # the compute of a layer; 4 s of collectives are hidden


def test_multiprocessors_of_a_collective_slow_what_runs_beside_it():
    two = Overlap(nano_batches=(0.5, 0.5), network_stream=True)
    held = Overlap(nano_batches=(0.5, 0.5), network_stream=True, comm_sms=20)
    assert run(layer, held).makespan_s > run(layer, two).makespan_s


def beside_memory(share):
    """A GEMM that needs the whole memory, in front of a reduce that needs it too."""
    kernel = Kernel(
        name="o", family="gemm", seconds=4 * share, latency_s=0.0, work={"sm": 400 * share, "hbm": 4 * share}
    )
    work = {"nvlink": 2 * share, "hbm": 2 * share}
    sent = Kernel(
        name="mlp_all_reduce", family="collective", seconds=2 * share, latency_s=0.0, work=work, sum_share=0.5
    )
    return kernel, sent


def test_the_memory_serves_compute_first_where_it_is_told_to():
    """Two batches, one layer: the first one's reduce gets no memory while the second one computes (T3)."""
    fair = Overlap(nano_batches=(0.5, 0.5), network_stream=True)
    first = Overlap(nano_batches=(0.5, 0.5), network_stream=True, compute_first=True)
    ends = {task.name: end for task, end in zip(*_ends(fair), strict=True)}
    assert ends["L0.1.o"] == pytest.approx(5.0)  # 2 s at half speed beside the reduce, then 1 s alone
    ends = {task.name: end for task, end in zip(*_ends(first), strict=True)}
    assert ends["L0.1.o"] == pytest.approx(4.0)
    assert ends["L0.0.mlp_all_reduce"] == pytest.approx(5.0)


def _ends(overlap):
    found = run(beside_memory, overlap, layers=1)
    return found.graph.tasks, found.end_s


def test_sums_in_memory_halve_what_a_collective_moves_there():
    moved = [
        sum(
            task.work.get("hbm", 0.0)
            for task in layer_graph(
                beside_memory, Overlap(network_stream=True, reduces_in_memory=near), 1, RESOURCES
            ).tasks
        )
        for near in (False, True)
    ]
    assert moved == pytest.approx([4.0 + 2.0, 4.0 + 1.0])


def test_shared_experts_run_beside_the_exchange():
    beside = Overlap(branch_stream=True, network_stream=True)
    alone = run(mixture, Overlap(), layers=1).makespan_s
    assert run(mixture, beside, layers=1).makespan_s == pytest.approx(alone - 1.5)


@settings(max_examples=40, deadline=None)
@given(
    shares=st.sampled_from([(), (0.5, 0.5), (0.3, 0.7), (0.25, 0.25, 0.5)]),
    streams=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    chunks=st.integers(1, 5),
    separate=st.sampled_from(["", "messages", "kernels"]),
    consumer=st.booleans(),
    local=st.sampled_from([0.0, 0.25]),
)
def test_every_overlap_does_all_the_work_once(shares, streams, chunks, separate, consumer, local):
    fusions = tuple(
        Fusion(collective=name, chunks=chunks, consumer=consumer, local_first=local, separate=separate)
        for name in ("moe_dispatch", "moe_combine")
    )
    overlap = Overlap(
        nano_batches=shares,
        attention_stream=streams[0],
        network_stream=streams[1],
        branch_stream=streams[2],
        fusions=fusions,
    )
    graph = layer_graph(mixture, overlap, 2, RESOURCES)
    for resource in ("sm", "nvlink"):
        wanted = 2 * math.fsum(kernel.work.get(resource, 0.0) for kernel in mixture(1.0))
        assert math.fsum(task.work.get(resource, 0.0) for task in graph.tasks) == pytest.approx(wanted)
    bounds, found = graph_bounds(graph), simulate_tasks(graph)
    assert bounds.lower_s * (1 - 1e-9) <= found.makespan_s <= bounds.serial_s * (1 + 1e-9)


def test_a_starved_collective_is_slower_in_proportion():
    price = lambda share: (gemm("o", 4.0, share), reduce("mlp_all_reduce", 2.1, 0.1, share))  # noqa: E731
    for held, seconds in ((8, 2 * 12 / 8), (12, 2.0), (24, 2.0)):
        slow = Overlap(network_stream=True, comm_sms=held, full_comm_sms=12)
        assert run(price, slow, layers=1).makespan_s == pytest.approx(4.0 + 0.1 + seconds)


def test_blocks_that_send_compute_nothing_where_they_are_fixed():
    """GEMM of 4 s in 4 chunks on 75 of 100 multiprocessors throughout, then the last message of 0.5 s."""
    price = lambda share: (gemm("o", 4.0, share), reduce("mlp_all_reduce", 2.0, 0.0, share))  # noqa: E731
    fused = (Fusion(collective="mlp_all_reduce", chunks=4),)
    fixed = Overlap(fusions=fused, comm_sms=25, fixed_sms=True)
    assert run(price, fixed, layers=1).makespan_s == pytest.approx(4.0 / 0.75 + 0.5)
    lent = Overlap(fusions=fused, comm_sms=25)  # nothing is sent during the first chunk, nor after each message
    assert run(price, lent, layers=1).makespan_s < 4.0 / 0.75 + 0.5


def test_what_nobody_else_needs_goes_last():
    """Three of four chunks are sent; the last message runs beside the fourth chunk, and what follows waits for both."""
    price = lambda share: (gemm("o", 4.0), reduce("mlp_all_reduce", 3.0, 0.0), reduce("gather", 1.0, 0.0))  # noqa: E731
    own = Fusion(collective="mlp_all_reduce", chunks=3, local_last=0.25)
    assert run(price, Overlap(fusions=(own,), network_stream=True), layers=1).makespan_s == pytest.approx(5.0)
    assert run(price, Overlap(fusions=(own,), network_stream=True), layers=2).makespan_s == pytest.approx(10.0)


def tiled(tiles, sms=100):
    waves = tiles / sms
    fill = waves / math.ceil(waves)
    work = {"sm": fill * math.ceil(waves) * sms}  # a second a wave
    whole = Kernel(
        name="o",
        family="gemm",
        seconds=math.ceil(waves),
        latency_s=0.0,
        work=work,
        tiles=tiles,
        wave_fill=fill,
    )
    return lambda share: (whole, reduce("mlp_all_reduce", 0.25 + 4.0 * share, 0.25))


@settings(max_examples=40, deadline=None)
@given(tiles=st.integers(99, 1200), seed=st.randoms(use_true_random=False))
def test_messages_after_groups_of_waves_follow_flash_overlap_s_formula(tiles, seed):
    """end = max(computed, sent) + latency(bytes) over the groups; waves run on what the collective leaves."""
    waves, groups = math.ceil(tiles / 98), []
    while sum(groups) < waves:
        groups.append(seed.randint(1, waves - sum(groups)))
    fusion = Fusion(collective="mlp_all_reduce", chunks=1, waves=tuple(groups), separate="messages")
    found = run(tiled(tiles), Overlap(fusions=(fusion,), comm_sms=2, fixed_sms=True), layers=1).makespan_s
    computed = sent = 0.0
    for group in groups:
        start, computed = computed, computed + group
        share = (min(98 * computed, tiles) - 98 * start) / tiles
        sent = max(computed, sent) + 0.25 + 4.0 * share
    assert found == pytest.approx(sent)


def test_groups_that_are_not_the_waves_are_refused():
    fusion = Fusion(collective="mlp_all_reduce", chunks=1, waves=(1, 1), separate="messages")
    with pytest.raises(InputError, match="groups of the 5 waves"):
        run(tiled(490), Overlap(fusions=(fusion,), comm_sms=2))
    with pytest.raises(InputError, match="leave none"):
        run(tiled(490), Overlap(fusions=(fusion,), comm_sms=100))
