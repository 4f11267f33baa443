"""KV sent to a decode pool: closed forms, never slower by layers than whole, bytes of the cache, paid once a step."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.emit import Request, emit
from simtool.errors import InputError
from simtool.hardware.cluster import parse_cluster
from simtool.hardware.collectives import collective_model
from simtool.metrics import serving_metrics
from simtool.models.config import load_architecture
from simtool.models.lowering_kv import kv_transfer_operator, sent_kv_bytes
from simtool.models.lowering_shard import make_shard
from simtool.models.memory import kv_bytes_per_token, state_bytes_per_sequence, window_kv_bytes
from simtool.overlaps import STOCK, overlap_name
from simtool.plan import Overlap, Parallel, Plan, Pool, Scheduler
from simtool.plan_file import parse_plan, plan_json
from simtool.simulator.batch_text import parse_batch
from simtool.simulator.compile import compile_engine
from simtool.simulator.overlap.kernel import Kernel
from simtool.simulator.overlap.layers import layer_graph
from simtool.simulator.overlap.step import overlapped_step
from simtool.simulator.priced_cluster import priced_cluster
from simtool.simulator.run import simulate_engines
from simtool.simulator.tasks.bounds import graph_bounds
from simtool.simulator.tasks.simulate import simulate_tasks
from simtool.simulator.tasks.task import Resource
from simtool.workload import make_workload

WHOLE, LAYERS = STOCK["kv-whole"], STOCK["kv-layers"]
RESOURCES = tuple(Resource(name=name, rate=1.0) for name in ("sm", "hbm", "nvlink", "nic"))
HARDWARE, HOST = priced_cluster(parse_cluster("1xh200"), "vllm")
ARCH = load_architecture("llama-3.1-8b")
POOL = Pool(device="h200", scheduler=Scheduler(max_num_seqs=8, max_num_batched_tokens=512))
NIC_S = kv_bytes_per_token(ARCH) / (50e9 * 0.92)  # of a token's KV on NDR (links.toml), at LINK_EFFICIENCY
LATENCY_S = 5e-6


def kernel(name, seconds, family="gemm", latency_s=0.0, **work):
    return Kernel(name=name, family=family, seconds=latency_s + seconds, latency_s=latency_s, work=work)


def layer(attention, rest, sent, latency_s=0.0, hbm=0.0, exchange=0.0):
    """Attention, an exchange between nodes, the rest; and KV of `sent` seconds on the NIC. hbm: share of the memory."""

    def price(share):
        kernels = [kernel("attention", share * attention, "attention_prefill", sm=share * attention)]
        if exchange:
            kernels.append(kernel("moe_dispatch", share * exchange, "collective", nic=share * exchange))
        kernels.append(kernel("mlp", share * rest, sm=share * rest, hbm=hbm * share * rest))
        moved = {"nic": share * sent, "hbm": hbm * share * sent}
        return (*kernels, kernel("kv_transfer", share * sent, "kv_transfer", latency_s, **moved))

    return price


def makespan(price, overlap, layers):
    return simulate_tasks(layer_graph(price, overlap, layers, RESOURCES)).makespan_s


SECONDS = st.floats(0.01, 3.0)


@settings(max_examples=30, deadline=None)
@given(attention=SECONDS, rest=SECONDS, sent=SECONDS, latency=st.floats(0.0, 2.0), layers=st.integers(1, 12))
def test_closed_forms_where_the_link_is_not_shared(attention, rest, sent, latency, layers):
    """By layers: messages queue for the link, each from its attention and a latency on. Whole: one after the layers."""
    price, computed = layer(attention, rest, sent, latency), layers * (attention + rest)
    free = 0.0
    for place in range(layers):
        free = max(free, place * (attention + rest) + attention + latency) + sent
    assert makespan(price, LAYERS, layers) == pytest.approx(max(computed, free))
    assert makespan(price, WHOLE, layers) == pytest.approx(computed + latency + layers * sent)
    assert makespan(price, Overlap(), layers) == pytest.approx(computed)


@settings(max_examples=30, deadline=None)
@given(
    times=st.tuples(SECONDS, SECONDS, SECONDS),
    latency=st.floats(0.0, 2.0),
    hbm=st.floats(0.0, 1.0),
    exchange=st.floats(0.0, 2.0),
    layers=st.integers(1, 6),
)
def test_by_layers_is_never_slower_than_whole_however_much_is_shared(times, latency, hbm, exchange, layers):
    price = layer(*times, latency, hbm, exchange)
    graph = layer_graph(price, LAYERS, layers, RESOURCES)
    by_layers, whole = simulate_tasks(graph).makespan_s, makespan(price, WHOLE, layers)
    assert graph_bounds(graph).lower_s <= by_layers * (1 + 1e-9)
    assert by_layers <= whole * (1 + 1e-9)


def test_the_nic_is_shared_with_an_exchange_between_nodes():
    """Both want the NIC for 2 s from 1 s on: each has half of it until 5 s. The layer ends at 8 s instead of 6 s."""
    price = layer(1.0, 3.0, 2.0, exchange=2.0)
    assert makespan(price, Overlap(), 1) == pytest.approx(6.0)
    assert makespan(price, LAYERS, 1) == pytest.approx(8.0)


@pytest.mark.parametrize("kv_transfer", ["whole", "layers"])
@pytest.mark.parametrize("shares", [(), (0.5, 0.5), (0.2, 0.3, 0.5)])
def test_all_kv_is_sent_once(kv_transfer, shares):
    overlap = Overlap(nano_batches=shares, network_stream=True, kv_transfer=kv_transfer)
    graph = layer_graph(layer(1.0, 2.0, 0.7, 0.1, hbm=0.2), overlap, 3, RESOURCES)
    sent = [task for task in graph.tasks if task.family == "kv_transfer"]
    assert math.fsum(task.work.get("nic", 0.0) for task in sent) == pytest.approx(3 * 0.7)
    assert math.fsum(task.work.get("hbm", 0.0) for task in sent) == pytest.approx(3 * 0.7 * 0.2)
    assert sum(task.latency_s > 0 for task in sent) == (1 if kv_transfer == "whole" else 3 * max(1, len(shares)))


def sent_bytes(model, parallel, requests, new_tokens):
    shard = make_shard(load_architecture(model), parallel, 0)
    return float(sent_kv_bytes(shard, np.array([float(requests)]), np.array([float(new_tokens)]))[0])


def test_a_device_sends_the_kv_that_it_holds():
    whole = 2 * 100 * kv_bytes_per_token(ARCH)
    assert sent_bytes("llama-3.1-8b", Parallel(), 2, 100) == whole
    assert sent_bytes("llama-3.1-8b", Parallel(tp=8), 2, 100) == whole / 8
    assert sent_bytes("llama-3.1-8b", Parallel(tp=16), 2, 100) == whole / 8  # 8 KV heads: each on two ranks
    latent = load_architecture("deepseek-v3")
    assert sent_bytes("deepseek-v3", Parallel(tp=8), 1, 100) == 100 * kv_bytes_per_token(latent)


def test_windows_keep_the_last_tokens_and_recurrences_send_their_state():
    windowed = load_architecture("gpt-oss-20b")
    short, long = (sent_bytes("gpt-oss-20b", Parallel(), 1, tokens) for tokens in (1000, 3000))
    half = kv_bytes_per_token(windowed) / 2  # every other layer has a window of 128 tokens
    assert long - short == pytest.approx(2000 * half)
    assert short == pytest.approx(1000 * half + window_kv_bytes(windowed))
    hybrid = load_architecture("qwen3-next-80b-a3b")
    state, per_token = state_bytes_per_sequence(hybrid), kv_bytes_per_token(hybrid)
    assert sent_bytes("qwen3-next-80b-a3b", Parallel(), 3, 50) == pytest.approx(3 * (state + 50 * per_token))
    assert state > 0


def test_devices_of_a_node_share_its_nics():
    group = parse_cluster("2x8xh200").groups[0]
    sizes = np.array([1e9])
    one, eight = (
        kv_transfer_operator(make_shard(ARCH, Parallel(tp=tp), 0, devices_per_node=8), sizes, 2) for tp in (1, 8)
    )
    plenty, few = (collective_model(replace(group, nics=nics)) for nics in (8, 2))
    alone_s = LATENCY_S + 1e9 / (50e9 * 0.92)
    assert plenty.price_operator(eight).seconds[0] == pytest.approx(alone_s)
    assert few.price_operator(one).seconds[0] == pytest.approx(alone_s)
    assert few.price_operator(eight).seconds[0] == pytest.approx(LATENCY_S + 4 * 1e9 / (50e9 * 0.92))


def step(overlap, batch="prefill:1x512", pool=POOL):
    return overlapped_step(ARCH, pool, HARDWARE, parse_batch(batch), overlap)


def test_a_step_pays_what_nothing_hides():
    none, whole, layers = step(Overlap()), step(WHOLE), step(LAYERS)
    assert whole.kv_bytes == layers.kv_bytes == 512 * kv_bytes_per_token(ARCH)
    assert whole.serial_s == layers.serial_s == none.serial_s
    assert whole.kv_exposed_s == pytest.approx(LATENCY_S + 512 * NIC_S, rel=1e-5)
    assert whole.seconds == pytest.approx(none.seconds + whole.kv_exposed_s)
    slowed_s = layers.seconds - none.seconds  # by reads of the memory: 46 of 4800 GB/s
    assert -1e-9 <= slowed_s < 0.01 * whole.kv_exposed_s
    assert layers.kv_exposed_s == 0.0
    near = step(replace(WHOLE, kv_link="intra_node"))
    assert near.kv_bytes == whole.kv_bytes
    assert 0 < near.kv_exposed_s < 0.5 * whole.kv_exposed_s


def test_serialized_transfers_grow_with_the_prompt_and_a_chunk_sends_its_own_tokens():
    """As Splitwise tells of serialized transfers; each chunk of a prompt sends its new tokens only."""
    costs = [step(WHOLE, f"prefill:1x{tokens}").kv_exposed_s - LATENCY_S for tokens in (64, 128, 256, 512)]
    assert costs == pytest.approx([tokens * NIC_S for tokens in (64, 128, 256, 512)], rel=1e-4)
    assert step(WHOLE, "prefill:1x128@1024").kv_bytes == step(WHOLE, "prefill:1x128").kv_bytes
    assert step(WHOLE, "prefill:2x64+decode:4x100").kv_bytes == step(WHOLE, "prefill:1x128").kv_bytes


@pytest.mark.parametrize("overlap", [WHOLE, LAYERS])
def test_steps_of_decodes_alone_send_nothing(overlap):
    found, none = step(overlap, "decode:8x1000"), step(Overlap(), "decode:8x1000")
    assert (found.kv_bytes, found.kv_exposed_s) == (0.0, 0.0)
    assert found.seconds == none.seconds


def test_a_step_of_few_tokens_sends_whole():
    few = replace(LAYERS, min_prefill_tokens=256)
    assert step(few, "prefill:1x128").seconds == step(WHOLE, "prefill:1x128").seconds
    assert step(few, "prefill:1x256").seconds == step(LAYERS, "prefill:1x256").seconds
    assert few.fallback == WHOLE
    assert Overlap(nano_batches=(0.5, 0.5)).fallback == Overlap()


@cache
def engines():
    overlaps = {"none": Overlap(), "whole": WHOLE, "layers": LAYERS, "few": replace(LAYERS, min_prefill_tokens=256)}
    return {
        name: compile_engine(ARCH, replace(POOL, overlap=overlap), HARDWARE, host=HOST)
        for name, overlap in overlaps.items()
    }


def test_tables_cost_steps_with_prompts_alone():
    whole, layers, few = (engines()[name].tables.gain[0] for name in ("whole", "layers", "few"))
    for gain in (whole, layers, few):
        assert np.abs(gain[:, :, 0]).max() < 1e-12  # no prompts
        assert gain.max() < 1e-12  # nothing is saved
    assert (whole[1:, :-1, 1:-1] < 0).all()  # at the ends of both axes attention is all of a step
    assert (layers >= whole - 1e-12).all()
    assert np.array_equal(few[:256], whole[:256])
    assert np.array_equal(few[256:], layers[256:])
    assert (engines()["layers"].lower.gain >= engines()["layers"].upper.gain - 1e-12).all()


def test_a_served_run_pays_each_prompt_s_transfer():
    """20 prompts of 500 tokens, a step each: whole costs their KV's time on the NIC, by layers nearly nothing."""
    prompts = make_workload(np.zeros(20), np.full(20, 500, np.int32), np.ones(20, np.int32))
    seconds = {
        name: serving_metrics(simulate_engines([found], prompts))["duration"] for name, found in engines().items()
    }
    cost_s = 20 * LATENCY_S + 20 * 500 * NIC_S
    assert seconds["whole"] - seconds["none"] == pytest.approx(cost_s, rel=0.05)
    assert 0 <= seconds["layers"] - seconds["none"] < 0.02 * cost_s


def test_plans_keep_it_and_engines_refuse_it_with_the_reason():
    assert (overlap_name(WHOLE), overlap_name(replace(LAYERS, min_prefill_tokens=9))) == ("kv-whole", "kv-layers")
    plan = Plan(model="llama-3.1-8b", cluster="1xh200", pools=(replace(POOL, overlap=LAYERS),))
    assert parse_plan(plan_json(plan)) == plan
    with pytest.raises(InputError, match="kv_transfer"):
        parse_plan(plan_json(plan).replace('"layers"', '"halves"'))
    for target, reason in (("vllm", "connector"), ("sglang", "disaggregation"), ("trtllm", "transceiver")):
        with pytest.raises(InputError, match=reason):
            emit(replace(plan, kernel_library=target), Request(target=target))
