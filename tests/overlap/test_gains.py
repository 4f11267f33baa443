"""Overlap in a replica's step tables: as the task graphs say, bounded, and nothing where nothing overlaps."""

from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.errors import InputError
from simtool.hardware.cluster import parse_cluster
from simtool.metrics import serving_metrics
from simtool.models.config import load_architecture
from simtool.overlaps import STOCK, overlap_name
from simtool.plan import Overlap, Parallel, Pool, Scheduler
from simtool.simulator.batch_text import StepText, parse_batch
from simtool.simulator.compile import compile_engine, price_pool
from simtool.simulator.overlap.gain_tables import StageLoad, gain_table
from simtool.simulator.overlap.step import overlapped_step
from simtool.simulator.priced_cluster import priced_cluster
from simtool.simulator.run import simulate_engines
from simtool.simulator.step_costs import OverlapGain
from simtool.workload import make_workload

HARDWARE, HOST = priced_cluster(parse_cluster("4xh200"), "vllm")
ARCH = load_architecture("llama-3.1-8b")
KNOBS = Scheduler(max_num_seqs=128, max_num_batched_tokens=2048)
NONE = Pool(device="h200", parallel=Parallel(tp=4), scheduler=KNOBS)
FUSED, TWO = (replace(NONE, overlap=STOCK[name]) for name in ("fused", "two-batch"))


POOLS = {"none": NONE, "fused": FUSED, "two-batch": TWO}


@cache
def costs(pool):
    return price_pool(ARCH, pool, HARDWARE)


@cache
def engine(pool):
    return compile_engine(ARCH, pool, HARDWARE, host=HOST, costs=costs(pool))


def saved_s(tables, batch: StepText) -> float:
    """Seconds that a step of the tables saves, as the kernel reads them."""
    tokens = batch.tokens
    base = tables.token_s[0, tokens] + tables.shared_s[0, tokens]
    decode = prefill = 0.0
    if batch.decodes:
        mean = batch.decode_kv_tokens / batch.decodes
        decode = float(np.interp(mean, tables.kv_knots, tables.decode_s[0, batch.decodes]))
        decode *= tables.mixed_decode if batch.chunks else 1.0
    for chunk in batch.chunks:
        at = min(round(np.log2(chunk.new_tokens) / tables.prefill_step), tables.prefill_rate.shape[1] - 1)
        prefill += chunk.requests * tables.prefill_rate[0, at, 0] * chunk.new_tokens * 0.5 * (chunk.new_tokens + 1)
    rows = tables.gain[0, tokens]
    knots = [np.linspace(0.0, 1.0, size - 1) for size in rows.shape]
    if not decode:
        line = rows[0]
    else:
        line = np.array([np.interp(decode / (base + decode), knots[0], column) for column in rows[1:].T])
    share = float(line[0] if not prefill else np.interp(prefill / (base + prefill), knots[1], line[1:]))
    return share * (base + decode + prefill)


@pytest.mark.parametrize("name", ["fused", "two-batch"])
@pytest.mark.parametrize(
    "text", ["decode:16x1000", "decode:128x4000", "prefill:1x2048", "prefill:8x256", "decode:64x900+prefill:1x1024"]
)
def test_tables_save_what_the_task_graph_of_the_step_saves(name, text):
    batch = parse_batch(text)
    step = overlapped_step(ARCH, NONE, HARDWARE, batch, STOCK[name])
    off = saved_s(engine(POOLS[name]).tables, batch) - (step.serial_s - step.seconds)
    assert abs(off) < 0.04 * step.serial_s


def test_decode_attention_that_is_dearer_beside_prompts():
    """vLLM on A100 takes twice as long for it: the shares are of steps as the replica prices them."""
    hardware, host = priced_cluster(parse_cluster("4xa100-80g"), "vllm")
    pool = replace(TWO, device="a100-80g", scheduler=Scheduler(max_num_seqs=136, max_num_batched_tokens=1024))
    tables = compile_engine(ARCH, pool, hardware, host=host).tables
    assert tables.mixed_decode > 1.5
    batch = parse_batch("decode:128x4000+prefill:1x896")
    step = overlapped_step(ARCH, pool, hardware, batch, pool.overlap)
    assert abs(saved_s(tables, batch) - (step.serial_s - step.seconds)) < 0.04 * step.serial_s


def test_layers_without_a_mixer_have_no_attention_to_overlap():
    hardware, _ = priced_cluster(parse_cluster("8xh200"), "vllm")
    arch = load_architecture("nemotron-h-56b")
    pool = Pool(device="h200", parallel=Parallel(tp=8), scheduler=KNOBS)
    step = overlapped_step(arch, pool, hardware, parse_batch("decode:16x1000+prefill:1x256"), STOCK["two-batch"])
    assert {time.kind.mixer is None for time in step.layers} == {False, True}
    assert step.seconds > 0


def test_no_overlap_leaves_every_table_as_it_was():
    plain, whole = engine(NONE).tables, engine(replace(NONE, overlap=Overlap(nano_batches=(1.0,)))).tables
    for field in fields(plain):
        assert np.array_equal(getattr(plain, field.name), getattr(whole, field.name)), field.name
    assert not plain.overlapped


def test_the_interval_spans_perfect_overlap_and_none():
    nominal, lower, upper = costs(TWO).gains[0].saved
    assert (lower >= nominal).all()
    assert (upper <= nominal).all()
    assert (lower - upper).max() > 0.1
    assert engine(POOLS["two-batch"]).provenance["overlap"] == "roofline"
    assert "overlap" not in engine(POOLS["none"]).provenance


def test_few_tokens_run_without_the_overlap():
    least = replace(STOCK["two-batch"], min_tokens=64, min_prefill_tokens=512)
    gain = engine(replace(NONE, overlap=least)).tables.gain[0]
    assert (gain[:64] == 0).all()
    assert (gain[64:512, :, 0] != 0).any()
    assert (gain[64:512, :, 1:] == 0).all()
    assert (gain[512:, 0, 1:] != 0).any()


@settings(max_examples=200, deadline=None)
@given(
    tokens=st.integers(1, 2048),
    decode=st.floats(0, 1e-2),
    prefill=st.floats(0, 1e-1),
    name=st.sampled_from(["fused", "two-batch"]),
)
def test_tables_without_overlap_are_never_slower(tokens, decode, prefill, name):
    tables = engine(POOLS[name]).tables
    fastest = tables.without_overlap()
    base = tables.token_s[0, tokens] + tables.shared_s[0, tokens]
    least = (fastest.decode_s[0, 1:, 1:] / tables.decode_s[0, 1:, 1:]).max()
    bound = fastest.token_s[0, tokens] + fastest.shared_s[0, tokens] + least * (decode + prefill)
    rows = tables.gain[0, tokens]
    most = max(rows.max(), 0.0)
    assert bound <= (base + decode + prefill) * (1.0 - most) + 1e-12
    assert not fastest.overlapped
    assert fastest.without_overlap() is fastest


def test_a_serving_run_gains_with_prompts_and_loses_with_few_decodes():
    prompts = make_workload(np.zeros(40), np.full(40, 2000, np.int32), np.ones(40, np.int32))
    decodes = make_workload(np.zeros(4), np.full(4, 16, np.int32), np.full(4, 200, np.int32))

    def seconds(name, workload):
        return serving_metrics(simulate_engines([engine(POOLS[name])], workload))["duration"]

    assert seconds("two-batch", prompts) < 0.95 * seconds("none", prompts)
    assert seconds("two-batch", decodes) > 1.05 * seconds("none", decodes)
    assert seconds("fused", prompts) < seconds("none", prompts)


def test_costs_made_for_another_overlap_are_refused():
    with pytest.raises(InputError, match="overlap"):
        compile_engine(ARCH, NONE, HARDWARE, host=HOST, costs=costs(TWO))


def test_waits_for_launches_are_not_saved():
    gain = OverlapGain(tokens=np.array([1.0, 8.0]), saved=np.full((3, 2, 10, 6), 0.3))
    ones = np.ones(9)
    free = StageLoad(padded=np.arange(9.0), dense_s=ones, shared_s=ones, launch_s=0 * ones, gap_s=0 * ones)
    slow = replace(free, launch_s=1.9 * ones)
    two = Overlap(nano_batches=(0.5, 0.5), network_stream=True)
    assert gain_table(gain, free, 0, two)[4, 0, 0] == pytest.approx(0.3)
    # launching takes 1.9 s for one batch, 3.8 s for two: the step of 2.9 s gets longer, not shorter
    assert gain_table(gain, slow, 0, two)[4, 0, 0] == pytest.approx((2.9 - (1.4 + 2.8)) / 2.9)
    assert gain_table(gain, free, 0, two)[0].max() == 0.0


def test_names_of_overlaps():
    assert all(overlap_name(overlap) == name for name, overlap in STOCK.items())
    assert overlap_name(replace(STOCK["nano"], min_tokens=8)) == "nano"
    assert overlap_name(Overlap(nano_batches=(0.3, 0.7))) == "own"
