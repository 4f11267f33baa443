"""The commands from end to end, on small questions."""

import csv
import json

import numpy as np
import pytest

from simtool.cli import run
from simtool.step_schedule import load_schedule

LOAD = ["--request-rate", "4", "--num-prompts", "24", "--input-len", "300", "--output-len", "40"]
ASK = ["plan", "llama-3.1-8b", "--devices", "2xh200", *LOAD, "--max-num-batched-tokens", "2048"]


def object_of(capsys, *arguments, code=0):
    """The one JSON object that the command prints; stderr stays empty."""
    assert run([str(argument) for argument in arguments]) == code
    told = capsys.readouterr()
    assert told.err == ""
    return json.loads(told.out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "out"
    assert run([*ASK, "--slo", "ttft:2000,tpot:100", "--out", str(out)]) == 0
    return out


def test_plan_prints_one_object(capsys):
    found = object_of(capsys, *ASK, "--json")
    for key in ("plan", "metrics", "legal", "simulated", "pruned", "gap", "provenance", "wall_s"):
        assert key in found
    assert found["gap"] == 0
    assert found["legal"] == found["simulated"] + found["pruned"]
    assert found["metrics"]["completed"] == 24
    assert found["plan"]["pools"][0]["device"] == "h200"


def test_plan_prints_the_answer_a_table_and_the_block(capsys):
    assert run([*ASK, "--price-per-hour", "h200=2", "--objective", "cost-per-token"]) == 0
    out = capsys.readouterr().out
    assert "Proven best of" in out
    assert "Serving Benchmark Result" in out
    assert "\x1b[" not in out


def test_the_output_folder_is_complete_and_replays_exactly(capsys, folder):
    names = ["plan.json", "report.html", "requests.npz", "result.json", "timeline.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    result = json.loads((folder / "result.json").read_text())
    assert result["mean_ttft_ms"] > 0
    timeline = json.loads((folder / "timeline.json").read_text())
    assert any(event["ph"] == "X" for event in timeline["traceEvents"])
    with np.load(folder / "requests.npz", allow_pickle=False) as columns:
        assert len(columns["finish_s"]) == 24
    again = object_of(capsys, "simulate", folder / "plan.json", *LOAD, "--json")
    for key in ("mean_ttft_ms", "p99_tpot_ms", "output_throughput", "duration"):
        assert again["metrics"][key] == result[key]
    assert type(again["metrics"]["completed"]) is int
    exact = object_of(capsys, "simulate", folder / "plan.json", *LOAD, "--exact-steps", "--json")
    assert exact["metrics"]["mean_e2el_ms"] == pytest.approx(result["mean_e2el_ms"], rel=1e-9)


def test_a_missed_slo_is_exit_code_1(capsys, folder):
    found = object_of(capsys, "simulate", folder / "plan.json", *LOAD, "--slo", "ttft:1", "--json", code=1)
    assert found["meets_slo"] is False


def test_an_slo_that_no_plan_meets_names_it_and_what_would_help(capsys):
    assert run([*ASK, "--slo", "tpot:1"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "infeasible" in told.err
    assert "hint" in told.err


def test_engine_flags_change_a_plan_and_contradictions_are_refused(capsys, folder):
    found = object_of(
        capsys, "simulate", folder / "plan.json", *LOAD, "--max-num-seqs", "4", "--block-size", "32", "--json"
    )
    assert found["plan"]["pools"][0]["scheduler"]["max_num_seqs"] == 4
    assert found["plan"]["pools"][0]["kv"]["block_size"] == 32
    assert run(["simulate", str(folder / "plan.json"), "--devices", "8xh200"]) == 2
    assert run(["simulate", str(folder / "plan.json"), "-tp", "1,2"]) == 2
    assert capsys.readouterr().err.count("ERROR") == 2


def test_a_plan_from_flags_alone(capsys):
    flags = ["--model", "llama-3.1-8b", "--devices", "2xh200", "-tp", "2", *LOAD, "--json"]
    assert object_of(capsys, "simulate", *flags)["plan"]["pools"][0]["parallel"]["tp"] == 2


def test_the_plan_must_fit_its_cluster(capsys):
    assert run(["simulate", "--model", "llama-3.1-8b", "--devices", "2xh200", "-tp", "4", *LOAD]) == 2
    assert "the plan takes 4 x h200 and the cluster has 2" in " ".join(capsys.readouterr().err.split())


def test_sweep_writes_rows(capsys, folder, tmp_path):
    table = tmp_path / "rows.csv"
    load = ["--num-prompts", "16", "--input-len", "300", "--output-len", "20"]
    rows = object_of(capsys, "sweep", folder / "plan.json", *load, "--request-rate", "2,8", "--out", table, "--json")
    assert [row["workload.request_rate"] for row in rows] == [2, 8]
    with table.open(newline="") as lines:
        assert len(list(csv.DictReader(lines))) == 2
    assert (
        run(["sweep", str(folder / "plan.json"), *load, "--over", "engine.max_num_seqs=1,16", "--slo", "ttft:9e3"]) == 0
    )
    assert "met" in capsys.readouterr().out
    assert run(["sweep", str(folder / "plan.json"), *load]) == 2


def test_explain_prints_where_time_goes(capsys, folder):
    found = object_of(capsys, "explain", folder / "plan.json", "--batch", "decode:16x2048", "--json")
    assert found["t_lower_s"] <= found["t_upper_s"]
    assert sum(row["share"] for row in found["rows"]) == pytest.approx(1)
    assert run(["explain", str(folder / "plan.json"), "--batch", "decode:16x2048+prefill:1x100@50"]) == 0
    assert "T_lower" in capsys.readouterr().out
    assert run(["explain", str(folder / "plan.json"), "--batch", "decode:16"]) == 2
    assert run(["explain", str(folder / "plan.json"), "--pool", "3"]) == 2


def test_overlap_compares_and_writes_the_fastest(capsys, tmp_path):
    plan = tmp_path / "out"
    assert run(["plan", "llama-3.1-8b", "--devices", "2xh200", "-tp", "2", *LOAD, "--out", str(plan)]) == 0
    capsys.readouterr()
    batch = ("--batch", "prefill:1x1024+decode:8x512")
    found = object_of(capsys, "overlap", plan / "plan.json", *batch, "--out", tmp_path / "step", "--json")
    assert found["none"]["seconds"] == pytest.approx(found["none"]["serial_s"])
    assert found["two-batch"]["exposed_collectives_s"] < found["none"]["exposed_collectives_s"]
    assert all(one["t_lower_s"] <= one["seconds"] * (1 + 1e-9) for one in found.values())
    assert sorted(path.name for path in (tmp_path / "step").iterdir()) == ["step.html", "step.json"]
    assert found["kv-whole"]["exposed_kv_transfer_s"] > found["kv-layers"]["exposed_kv_transfer_s"] == 0
    assert found["kv-whole"]["kv_transfer_bytes"] > found["none"]["kv_transfer_bytes"] == 0
    solve = ("--batch", "prefill:1x1024", "--overlap", "two-batch", "--solve", "--seconds", "0.5")
    found = object_of(capsys, "overlap", plan / "plan.json", *solve, "--json")
    assert list(found) == ["none", "two-batch", "solved"]
    assert found["solved"]["seconds"] <= found["none"]["seconds"] * (1 + 1e-9)
    for layer in found["solved"]["layers"]:
        assert 0 < layer["bound_s"] <= layer["planned_s"] <= layer["serial_s"] * (1 + 1e-9)
        assert layer["simulated_s"] <= layer["serial_s"] * (1 + 1e-9)
        assert layer["overlaps"] == (layer["simulated_s"] < layer["serial_s"] * (1 - 1e-9))
    path = tmp_path / "schedule.json"
    assert run(["overlap", str(plan / "plan.json"), *solve, "--schedule", str(path)]) == 0
    told = capsys.readouterr().out
    assert "gap" in told
    assert ("no other overlap of the table is faster" in told) != ("faster than the solved schedule (" in told)
    schedule = load_schedule(path)
    assert (schedule.model, schedule.tp, schedule.batch) == ("llama-3.1-8b", 2, "prefill:1x1024")
    assert [kind.layers for kind in schedule.kinds] == [32]
    assert run(["overlap", str(plan / "plan.json"), "--schedule", str(path)]) == 2
    assert "give --solve too" in capsys.readouterr().err
    assert run(["overlap", str(plan / "plan.json"), "--solve", "--seconds", "0"]) == 2
    assert run(["overlap", str(plan / "plan.json"), "--overlap", "fused"]) == 0
    assert "fused" in capsys.readouterr().out
    assert run(["overlap", str(plan / "plan.json"), *batch, "--overlap", "kv-layers", "--overlap", "kv-whole"]) == 0
    assert "kv-layers is the fastest of those that send KV" in " ".join(capsys.readouterr().out.split())
    assert run(["overlap", str(plan / "plan.json"), "--overlap", "magic"]) == 2
    assert run(["overlap", str(plan / "plan.json"), "--batch", "decode:9999999x5"]) == 2


def test_pareto_and_capacity(capsys):
    found = object_of(capsys, *ASK, "--pareto", "tpot,throughput-per-gpu", "--json")
    assert found["front"]
    assert found["legal"] == found["simulated"] + found["pruned"]
    assert run([*ASK, "--pareto", "tpot,speed"]) == 2
    assert run([*ASK, "--pareto", "tpot,throughput-per-gpu"]) == 0
    capsys.readouterr()
    found = object_of(capsys, *ASK, "--slo", "ttft:100", "--capacity", "--json")
    assert found["capacity"]["met_request_rate"] > 0


def test_catalogues(capsys):
    model = object_of(capsys, "models", "llama-3.1-8b", "--json")
    assert model["parameters"] == 8030261248
    assert model["kv_bytes_per_token"] == 131072
    assert len(object_of(capsys, "models", "--json")) >= 30
    assert object_of(capsys, "hardware", "h200", "--json")["sources"]
    assert object_of(capsys, "hardware", "4xa100-80g+8xl4", "--json")["devices"] == 12
    assert run(["models"]) == run(["hardware"]) == run(["hardware", "l4"]) == run(["models", "llama-3.1-8b"]) == 0


def test_traces_are_made_converted_and_inspected(capsys, tmp_path):
    made, own = tmp_path / "made.csv.gz", tmp_path / "own.jsonl"
    assert run(["trace", "synth", str(made), "--num-prompts", "50", "--request-rate", "5", "--seed", "3"]) == 0
    assert run(["trace", "convert", str(made), str(own), "--request-rate", "10"]) == 0
    assert capsys.readouterr().err.count("50 requests written") == 2
    facts = object_of(capsys, "trace", "inspect", own, "--json")
    assert facts["requests"] == 50
    assert facts["request_rate_per_s"] == pytest.approx(10)
    assert run(["trace", "synth", str(tmp_path / "s.csv"), "--num-prompts", "9", "--turns", "3"]) == 2
    assert not (tmp_path / "s.csv").exists()


def test_version_and_help(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("simtool ")
    assert run(["plan", "--help"]) == 0
    assert "[all of a trace" in " ".join(capsys.readouterr().out.replace("│", " ").split())
