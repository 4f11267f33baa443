"""The reproductions of B1 to B8: what they claim of their models holds, whatever the published numbers are."""

import numpy as np
import pytest

from benchmarks.reproductions import (
    b1_mixtral_offloading,
    b2_fiddler,
    b3_ktransformers,
    b4_pre_gated,
    b5_moe_infinity,
    b6_expertflow,
    b7_superpipeline,
    b8_m3vit,
)


def test_mixtral_offloading_has_its_fitted_rows_and_its_ablations_in_order(monkeypatch):
    monkeypatch.setattr(b1_mixtral_offloading, "TOKENS", 100)
    trace, gpu = b1_mixtral_offloading.routing(0.2), b1_mixtral_offloading.fitted("T4")
    found = {
        row: b1_mixtral_offloading.speed(b1_mixtral_offloading.simulated(row, gpu, trace, 0.6))
        for row in b1_mixtral_offloading.ROWS
    }
    _, _, on_demand, naive = b1_mixtral_offloading.PUBLISHED["T4"]
    assert found["no LRU"] == pytest.approx(on_demand)
    assert found["naive"] == pytest.approx(naive)
    assert found["full"] > found["no prefetch"] > found["no LRU"] > found["naive"]


def test_fiddler_copies_in_the_prompt_and_computes_on_the_cpu_in_decode():
    run = b2_fiddler.run_of(256, 64)
    found = b2_fiddler.simulated("Fiddler", run)
    assert found.step_counts[0, 7] > found.step_counts[0, 4]  # loads, on the CPU
    assert found.step_counts[1:, 7].sum() == 0
    assert found.step_counts[1:, 4].sum() > 0
    rivals = [b2_fiddler.simulated(system, run).makespan_s for system in ("Mixtral-offloading", "layer streaming")]
    assert found.makespan_s < rivals[0] < rivals[1]


def test_ktransformers_has_its_fitted_rows_and_gains_from_what_is_used_most(monkeypatch):
    monkeypatch.setattr(b3_ktransformers, "TOKENS", 40)
    needs, _ = b3_ktransformers.needs_of(0.0, 0)
    costs = b3_ktransformers.fitted(needs)
    found = {row: b3_ktransformers.speed(b3_ktransformers.simulated(row, costs, needs)) for row in (0, 30, 50, 90, 100)}
    assert [found[row] for row in b3_ktransformers.FITTED_ROWS] == pytest.approx(
        [b3_ktransformers.PUBLISHED[row] for row in b3_ktransformers.FITTED_ROWS], rel=1e-3
    )
    assert list(found.values()) == sorted(found.values())
    skewed, uses = b3_ktransformers.needs_of(1.0, 0)
    placed = b3_ktransformers.speed(b3_ktransformers.simulated(30, costs, skewed, uses))
    assert placed > b3_ktransformers.speed(b3_ktransformers.simulated(30, costs, skewed))


def test_pre_gated_lies_between_on_demand_and_all_resident():
    found = {system: b4_pre_gated.speed(system, 64, 32e9) for system in b4_pre_gated.PUBLISHED}
    assert found["GPU only"] == pytest.approx(b4_pre_gated.PUBLISHED["GPU only"])
    assert found["GPU only"] > found["pre-gated"] > found["on-demand"] > found["prefetch-all"]


def test_moe_infinity_keeps_the_most_activated_where_lru_thrashes():
    """A token walks through more experts than there are slots: the least recently used one is the next to be needed."""
    model = b5_moe_infinity.models()[1]
    trace, past = b5_moe_infinity.traces(model)
    own, plain, lru = (
        b5_moe_infinity.simulated(system, model, trace, past) for system in ("MoE-Infinity", "no prefetch", "LRU")
    )
    assert own.hit_rate > plain.hit_rate > lru.hit_rate
    assert max(own.makespan_s, plain.makespan_s) < lru.makespan_s
    assert plain.hit_rate < b5_moe_infinity.bound(model, trace) < 1.0


def test_expertflow_predicts_better_than_lru_remembers(monkeypatch):
    monkeypatch.setattr(b6_expertflow, "TOKENS", 60)
    for batch in (4, 16):
        trace = b6_expertflow.trace_of(batch, 1.0, 0.0)
        rates = [b6_expertflow.hit_rate("path", trace, trace.step, recall) for recall in (0.6, 0.8, 1.0)]
        assert rates == sorted(rates)
        assert rates[0] > b6_expertflow.hit_rate("LRU", trace, trace.step)
    wide = b6_expertflow.trace_of(32, 1.0, 0.0)
    sizes = np.bincount(b6_expertflow.two_batches(wide, by_route=True))
    assert (sizes == 16).all()


def test_superpipeline_saves_more_the_longer_a_layer_executes():
    found = [b7_superpipeline.saved(tokens) for tokens in (512, 4096, 8192)]
    assert [share for _, share in found] == sorted(share for _, share in found)
    assert found[-1][0] == 0
    for tokens in (512, 8192):
        unit_s = max(b7_superpipeline.execute_s(tokens), b7_superpipeline.move_s())
        assert b7_superpipeline.step_s(0, tokens) == pytest.approx(b7_superpipeline.LAYERS * unit_s)


@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_two_slots_of_m3vit_take_its_closed_form(exponent):
    needs = b8_m3vit.needs_of(exponent)
    two = b8_m3vit.simulated_s(needs, 2, b8_m3vit.stock.on_demand(order="each"))
    assert two == pytest.approx(b8_m3vit.closed_form_s(needs))
    assert two < b8_m3vit.simulated_s(needs, 1, b8_m3vit.stock.on_demand(order="each"))
