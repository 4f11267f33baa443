"""The reproductions of T3, Comet and FlashOverlap: what they claim holds for their models, whatever the numbers are."""

import math
from itertools import pairwise

import pytest

from benchmarks.reproductions import a1_nanoflow, c1_t3, c2_comet, c3_flashoverlap
from simtool.plan import Overlap


@pytest.fixture(scope="module")
def h800():
    return c2_comet.hardware()


@pytest.fixture(scope="module")
def t3():
    return c1_t3.hardware()


@pytest.mark.parametrize("link", [75e9, 150e9])
def test_t3_lies_between_nothing_and_the_ideal(t3, link):
    for one in [*c1_t3.sub_layers(c1_t3.SMALL, (8,)), *c1_t3.sub_layers(c1_t3.LARGE, (32,))]:
        found = c1_t3.gains(one, t3, link)
        direct = c1_t3.kernels(one, t3, link, direct=True)
        step = 1.0 + direct[1].seconds / one.ranks / direct[0].seconds  # one message may be left over
        assert 1.0 < found["plain"] <= found["first"] * (1 + 1e-9)
        assert found["ideal"] / step <= found["first"] <= found["ideal"] * (1 + 1e-9)
        assert found["ideal"] <= 1.5 + 1e-9  # reduce-scatter and all-gather are alike, and only one can be hidden
        assert found["moved"] < 1.0


def test_sums_in_memory_leave_the_published_share_of_t3_s_traffic(t3):
    rows = [c1_t3.gains(one, t3, 150e9)["moved"] for one in c1_t3.sub_layers(c1_t3.SMALL, (8, 16))]
    assert c1_t3.geomean(rows) - 1 == pytest.approx(c1_t3.PUBLISHED_MOVED, abs=0.02)


def test_an_all_reduce_on_a_tenth_of_the_units_costs_t3_its_gain(t3):
    """The longer of the two is slowed: (G + A) / (1.41 A). The shorter one's ratio would keep 1.5x."""
    one = next(c1_t3.sub_layers(c1_t3.SMALL, (8,)))
    gemm = c1_t3.kernels(one, t3, 150e9, direct=False)[0]
    seconds = gemm.seconds / (c1_t3.ALONE - 1)
    assert c1_t3.beside_all_reduce(gemm, seconds, t3, 0) == pytest.approx(c1_t3.ALONE)
    shared = c1_t3.beside_all_reduce(gemm, seconds, t3, c1_t3.COMM_UNITS)
    assert shared == pytest.approx(c1_t3.ALONE / c1_t3.SLOWER)
    assert shared == pytest.approx(c1_t3.SHARED, rel=0.01)


def test_comet_s_best_blocks_balance_the_two_sides(h800):
    """As the published ones, they grow with the tokens; with few blocks messages wait, with many the GEMM does."""
    best = {}
    for tokens in c2_comet.PUBLISHED_BLOCKS:
        seconds = c2_comet.sweep(c2_comet.Mixture(tokens=tokens), (1,), c2_comet.FULL_BLOCKS, h800)
        best[tokens] = min(seconds, key=lambda n: seconds[n])
        falling = [seconds[n] for n in c2_comet.SWEEP if n <= best[tokens]]
        rising = [seconds[n] for n in c2_comet.SWEEP if n >= best[tokens]]
        assert all(later < sooner for sooner, later in pairwise(falling))
        assert all(later > sooner for sooner, later in pairwise(rising))
    assert best[4096] == c2_comet.PUBLISHED_BLOCKS[4096]  # the fitted row
    assert best[16384] > best[4096]


@pytest.mark.parametrize("layers", [(0,), (1,), (0, 1)])
def test_comet_s_layer_is_bounded_and_beats_chunks(h800, layers):
    shape = c2_comet.Mixture(tokens=8192)
    price = c2_comet.kernels(shape, h800, layers)
    made = price(1.0)
    computed, sent = (
        math.fsum(kernel.seconds for kernel in made if (kernel.family == "collective") is which)
        for which in (False, True)
    )
    assert c2_comet.run(price, Overlap(), h800).makespan_s == pytest.approx(computed + sent)
    blocks, fused = c2_comet.best_blocks(shape, layers, c2_comet.FULL_BLOCKS, h800)
    assert max(computed * 132 / (132 - blocks), sent) * (1 - 1e-9) <= fused < computed + sent
    chunks = c2_comet.run(price, c2_comet.chunked(4), h800)
    assert fused < chunks.makespan_s
    timeline = c2_comet.run(price, c2_comet.comet(shape, blocks, c2_comet.FULL_BLOCKS), h800)
    assert c2_comet.hidden(timeline, made) > c2_comet.hidden(chunks, made)


@pytest.mark.parametrize(("name", "ranks", "kind"), [("a800", 4, "all_reduce"), ("rtx-4090", 2, "reduce_scatter")])
def test_flash_overlap_s_predictor_meets_the_simulation(name, ranks, kind):
    """Where memory is not short, end = max(computed, sent) + latency(bytes) is what the task graph does."""
    hardware = c3_flashoverlap.stage(name, ranks)
    for rows, inner in ((2048, 8192), (4096, 2048), (4096, 4096)):
        pair = c3_flashoverlap.make_pair(hardware, kind, rows, inner)
        known = list(c3_flashoverlap.groupings(pair.waves))
        assert len(set(known)) == len(known)
        assert all(sum(groups) == pair.waves for groups in known)
        for groups in known[:: max(1, len(known) // 8)]:
            simulated = c3_flashoverlap.simulated_s(pair, groups)
            assert simulated == pytest.approx(c3_flashoverlap.predicted_s(pair, groups), rel=1e-6)


def test_flash_overlap_gains_and_stays_below_what_can_be_hidden():
    hardware = c3_flashoverlap.stage("a800", 4)
    pair = c3_flashoverlap.make_pair(hardware, "reduce_scatter", 4096, 4096)
    seconds, groups = c3_flashoverlap.best_grouping(pair)
    made = pair(1.0)
    assert max(kernel.seconds for kernel in made) < seconds < pair.serial_s
    assert len(groups) > 1


def test_only_collectives_that_add_have_sums_to_save(h800):
    gathered, _ = c2_comet.kernels(c2_comet.Mixture(tokens=8192), h800, (0,))(1.0)
    multiplied, reduced = c2_comet.kernels(c2_comet.Mixture(tokens=8192), h800, (1,))(1.0)
    assert (gathered.sum_share, multiplied.sum_share, reduced.sum_share) == (0.0, 0.0, 0.5)


def test_nanoflow_gains_from_overlap_and_loses_by_the_cut_alone():
    whole, cut, nano = (
        a1_nanoflow.tokens_per_s(512, 512, overlap, requests=3000)
        for overlap in (Overlap(), a1_nanoflow.PIECES, a1_nanoflow.NANO)
    )
    assert cut < whole < nano
    assert nano < a1_nanoflow.OPTIMUM
