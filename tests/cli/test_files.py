"""Plan files replay exactly; output is whole or absent; scenarios refuse what they do not know."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.adjusting import adjusted, overlaps_of
from simtool.cli_options import asked_scenario, join_slo_words
from simtool.errors import InputError
from simtool.files import output_file, output_folder
from simtool.json_text import json_text
from simtool.overlaps import STOCK, overlap_name
from simtool.plan import KvPolicy, Overlap, Parallel, Plan, Pool, Scheduler
from simtool.plan_file import load_plan, parse_plan, plan_json
from simtool.scenario import load_scenario

degrees = st.integers(1, 64)
texts = st.text(min_size=1, max_size=12)
pools = st.builds(
    Pool,
    device=texts,
    replicas=degrees,
    parallel=st.builds(Parallel, tp=degrees, pp=degrees, dp=degrees, ep=degrees, layers_per_stage=st.just((3, 4))),
    scheduler=st.builds(
        Scheduler,
        max_num_seqs=degrees,
        cuda_graphs=st.booleans(),
        cuda_graph_sizes=st.just((1, 2)),
        max_model_len=degrees,
    ),
    kv=st.builds(
        KvPolicy,
        block_size=degrees,
        gpu_memory_utilization=st.floats(0.01, 1.0),
        watermark=st.floats(0, 1, exclude_max=True),
    ),
    stage_devices=st.tuples(texts, texts),
    overlap=st.sampled_from([*STOCK.values(), Overlap(nano_batches=(0.25, 0.75), min_prefill_tokens=512)]),
)
plans = st.builds(Plan, model=texts, cluster=texts, pools=st.tuples(pools, pools), weight_dtype=texts)


@settings(max_examples=30)
@given(plans)
def test_a_plan_survives_its_file(plan):
    assert parse_plan(plan_json(plan)) == plan


def plan_with(**changes):
    plan = json.loads(plan_json(Plan(model="m", cluster="1xh200", pools=(Pool(device="h200"),))))
    return plan | changes


def with_overlap(**changes):
    return plan_with(pools=[{"device": "h200", "overlap": changes}])


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (plan_with(extra=1), "extra: unknown key"),
        (plan_with(pools=[{"device": "h200", "parallel": {"tq": 1}}]), "pools.0.parallel.tq: unknown key"),
        (plan_with(pools=[{"device": "h200", "parallel": {"tp": "2"}}]), "pools.0.parallel.tp"),
        (plan_with(pools=[{"device": "h200", "parallel": {"tp": 0}}]), "tp is 0"),
        (plan_with(pools=[{"device": "h200", "kv": {"gpu_memory_utilization": 1.5}}]), "gpu_memory_utilization"),
        (plan_with(pools=[{"device": "h200", "kv": {"watermark": 1.0}}]), "watermark is 1.0"),
        (with_overlap(nano_batches=[0.5, 0.6]), "nano_batches add up to 1.1"),
        (with_overlap(nano_batches=[1.5, -0.5]), "shares in (0, 1]"),
        (with_overlap(comm_sms=-1), "comm_sms is -1"),
        (with_overlap(min_tokens=-1), "min_tokens is -1"),
        (with_overlap(fusions=[{"collective": "moe_combine", "chunks": 0}]), "chunks is 0"),
        (with_overlap(fusions=[{"collective": "moe_combine", "chunks": 2, "local_first": 1.0}]), "local_first is 1.0"),
        (with_overlap(fusions=[{"collective": "moe_combine", "chunks": 2, "waves": [0]}]), "at least one wave"),
        (with_overlap(streams=2), "pools.0.overlap.streams: unknown key"),
        (plan_with(pools=[]), "pools is empty"),
        (plan_with(schema=2), "schema is 2"),
        (plan_with(kernel_library="tvm"), "kernel_library"),
        ([1, 2], "file"),
    ],
)
def test_a_bad_plan_file_names_the_key(plan, words):
    with pytest.raises(InputError, match=r"^plan: ") as caught:
        parse_plan(json.dumps(plan))
    assert words.removeprefix("file") in str(caught.value)


def interrupted(path):
    path.write_text("half")
    raise KeyboardInterrupt


def test_a_failed_output_leaves_the_old_files(tmp_path):
    folder = tmp_path / "out"
    with output_folder(folder) as building:
        (building / "plan.json").write_text("first")
        assert not folder.exists()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(KeyboardInterrupt), output_folder(folder) as building:
        interrupted(building / "plan.json")
    assert (folder / "plan.json").read_text() == "first"
    with output_folder(folder) as building:
        (building / "plan.json").write_text("third")
    assert sorted(path.name for path in folder.iterdir()) == ["notes.txt", "plan.json"]
    assert (folder / "plan.json").read_text() == "third"
    with pytest.raises(KeyboardInterrupt), output_file(folder / "plan.json") as path:
        interrupted(path)
    assert (folder / "plan.json").read_text() == "third"
    assert len(list(tmp_path.rglob("*"))) == 3


def test_a_new_folder_can_be_read_by_others(tmp_path):
    with output_folder(tmp_path / "a" / "b") as building:
        (building / "x").write_text("")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o700 == 0o700
    with pytest.raises(InputError, match="is a folder"), output_file(tmp_path):
        pass


def test_json_has_no_nan():
    import numpy as np

    text = json_text({"a": float("nan"), "b": np.float64(2), "c": np.array([1.0, np.inf]), "d": (1, np.int32(2))})
    assert json.loads(text) == {"a": None, "b": 2.0, "c": [1.0, None], "d": [1, 2]}
    with pytest.raises(InputError):
        load_plan(__import__("pathlib").Path("/"))


SCENARIO = """
model = "llama-3.1-8b"
devices = "2xh200"
[workload]
trace = "t.csv"
request_rate = 2
[slo]
ttft_ms = 1000
[engine]
tensor_parallel_size = [1, 2]
max_num_seqs = 64
[price_per_hour]
h200 = 3.5
"""


def test_flags_and_settings_override_the_scenario(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text(SCENARIO)
    given = {"workload.request_rate": 4.0, "slo": "tpot:50", "prices": "l4=0.5", "engine.data_parallel_size": "1,2"}
    found = asked_scenario(path, given, ["workload.seed=7", "engine.router=least_outstanding"], "qwen3-32b")
    assert found.model == "qwen3-32b"
    assert found.workload.trace == str(tmp_path / "t.csv")
    assert (found.workload.request_rate, found.workload.seed) == (4.0, 7)
    assert (found.slo.ttft_ms, found.slo.tpot_ms) == (1000, 50)
    assert found.engine.tensor_parallel_size == (1, 2)
    assert found.engine.data_parallel_size == (1, 2)
    assert found.engine.max_num_seqs == (64,)
    assert found.engine.router == ("least_outstanding",)
    assert found.price_per_hour == {"h200": 3.5, "l4": 0.5}


def test_a_plan_s_overlap_is_changed_by_name_and_by_threshold(tmp_path):
    asked = asked_scenario(None, {"engine.overlap": "two-batch", "engine.dbo_decode_token_threshold": 64}, None, None)
    start = Plan(model="m", cluster="1xh200", pools=(Pool(device="h200"),))
    found = adjusted(start, asked)
    assert found.pools[0].overlap == replace(STOCK["two-batch"], min_tokens=64)
    later = adjusted(found, asked_scenario(None, {"engine.dbo_prefill_token_threshold": 512}, None, None))
    assert later.pools[0].overlap == replace(STOCK["two-batch"], min_tokens=64, min_prefill_tokens=512)
    assert adjusted(later, asked_scenario(None, {"engine.overlap": "none"}, None, None)).pools[0].overlap.off
    listed = asked_scenario(None, {"engine.overlap": "none,nano"}, None, None).engine
    assert [overlap_name(overlap) for overlap in overlaps_of(listed)] == ["none", "nano"]
    with pytest.raises(InputError, match="has 2 values"):
        adjusted(start, asked_scenario(None, {"engine.overlap": "none,nano"}, None, None))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("modell = 'x'", "modell: unknown key"),
        ("[engine]\ntp = 2", "engine.tp: unknown key"),
        ("[workload]\nrequest_rate = nan", "workload.request_rate"),
        ("[workload]\nrequest_rate = 'fast'", "workload.request_rate"),
        ("model = ", "not valid TOML"),
        ("[engine]\noverlap = 'dbo'", "'dbo' is no overlap; one of none, two-batch"),
    ],
)
def test_a_bad_scenario_names_the_key(tmp_path, text, words):
    path = tmp_path / "s.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"s\.toml") as caught:
        load_scenario(path)
    assert words in str(caught.value)


def test_vllm_writes_goodput_as_several_words():
    words = ["plan", "--goodput", "ttft:200", "tpot:50", "--json", "tpot:1"]
    assert join_slo_words(words) == ["plan", "--goodput", "ttft:200,tpot:50", "--json", "tpot:1"]
