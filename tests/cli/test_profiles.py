"""`--profile`: a calibration's file prices a plan, which replays with it exactly; a bad file is one clear error."""

import json
from pathlib import Path

import pytest

import simtool as st
from simtool.cli import run
from simtool.hardware.profile_file import profile_bytes
from simtool.simulator.warm import compile_kernel
from tests.hardware.own_profile import CPU_MACHINE, write_small

SIMULATE = ["simulate", "--model", "llama-3.1-8b", "--devices", "1xh200", "--num-prompts", "6"]
LOAD = ["--num-prompts", "6"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """own.json, slow.json.gz (twice as slow) and torch.json, of an H200. Compiles, so that no command has to say so."""
    compile_kernel()
    made = tmp_path_factory.mktemp("profiles")
    write_small(made / "own.json")
    write_small(made / "slow.json.gz", slower=2.0)
    write_small(made / "torch.json", library="torch")
    return made


def object_of(capsys, *arguments):
    """The one JSON object that the command prints, and what it says on stderr."""
    assert run([str(argument) for argument in arguments]) == 0
    told = capsys.readouterr()
    return json.loads(told.out), told.err


def refused(capsys, *arguments):
    """What the command says on stderr where it exits with 2 and prints nothing."""
    assert run([str(argument) for argument in arguments]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("ERROR") == 1
    return " ".join(told.err.split())


def plan_file(place, profile):
    """The path of a plan file that names the profile."""
    pools = (st.Pool(device="h200"),)
    plan = st.Plan(model="llama-3.1-8b", cluster="1xh200", pools=pools, profiles=st.profile_files(profile))
    (place / "plan.json").write_text(st.plan_json(plan))
    return place / "plan.json"


def test_a_plan_with_a_profile_replays_byte_for_byte(capsys, folder, tmp_path):
    first, again = tmp_path / "first", tmp_path / "again"
    found, told = object_of(capsys, *SIMULATE, "--profile", folder / "slow.json.gz", "--out", first, "--json")
    assert told == ""
    plan = json.loads((first / "plan.json").read_text())
    assert plan["profiles"] == found["plan"]["profiles"]
    assert plan["profiles"][0]["path"] == str(folder / "slow.json.gz")
    assert plan["profiles"][0]["checksum"].startswith("sha256:")
    object_of(capsys, "simulate", first / "plan.json", *LOAD, "--out", again, "--json")
    for name in ("plan.json", "requests.npz", "timeline.json"):
        assert (first / name).read_bytes() == (again / name).read_bytes()
    shipped, _ = object_of(capsys, *SIMULATE, "--json")
    assert found["metrics"]["duration"] > 1.2 * shipped["metrics"]["duration"]


def test_a_flag_replaces_the_profiles_of_a_plan(capsys, folder, tmp_path):
    plan = plan_file(tmp_path, folder / "own.json")
    flags = ["--profile", f"{folder / 'slow.json.gz'},{folder / 'own.json'}", "--profile", folder / "own.json"]
    found, _ = object_of(capsys, "simulate", plan, *LOAD, *flags, "--json")
    paths = [Path(file["path"]).name for file in found["plan"]["profiles"]]
    assert paths == ["slow.json.gz", "own.json"]
    found, _ = object_of(capsys, "simulate", plan, *LOAD, "--set", "profiles=[]", "--json")
    assert found["plan"]["profiles"] == []


def test_a_changed_profile_is_refused_at_replay(capsys, tmp_path):
    path = write_small(tmp_path / "own.json")
    replay = ["simulate", plan_file(tmp_path, path), *LOAD, "--out", tmp_path / "again"]
    table = json.loads(path.read_text())
    path.write_bytes(profile_bytes(table | {"version": "2"}, packed=False))
    assert "own.json: changed since the plan was made" in refused(capsys, *replay)
    path.write_text(json.dumps(table | {"version": "2"}))
    assert "checksum" in refused(capsys, *replay)
    path.unlink()
    assert "own.json: cannot be read" in refused(capsys, *replay)
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("content", [None, b"", b"text", b"{}", b"\x1f\x8b\x08", b"\xff\xfe\x00", "folder", "cut"])
def test_a_file_that_is_no_profile_is_refused(capsys, folder, tmp_path, content):
    path = tmp_path / "bad.json"
    if content == "folder":
        path.mkdir()
    elif content == "cut":
        path.write_bytes((folder / "own.json").read_bytes()[:900])
    elif content is not None:
        path.write_bytes(content)
    plan = ["plan", "llama-3.1-8b", "--devices", "1xh200", "--num-prompts", "4", "--profile", path]
    explain = ["explain", "--model", "llama-3.1-8b", "--devices", "1xh200", "--profile", path]
    for command in (
        plan,
        explain,
        [*SIMULATE, "--profile", path],
        ["sweep", *SIMULATE[1:], "--request-rate", "1,2", "--profile", path],
    ):
        assert "bad.json" in refused(capsys, *command)


def test_an_empty_path_and_an_unknown_device_are_refused(capsys, folder, tmp_path):
    assert "profiles.0" in refused(capsys, *SIMULATE, "--profile", "")
    table = json.loads((folder / "own.json").read_text())
    (tmp_path / "cpu.json").write_bytes(profile_bytes(table | {"device": "epyc-9654"}, packed=False))
    told = refused(capsys, *SIMULATE, "--profile", tmp_path / "cpu.json")
    assert "measures 'epyc-9654', which is not in the device catalogue" in told
    assert "simtool hardware" in told


@pytest.mark.parametrize("value", ['["own.json"]', '"own.json"'])
def test_a_scenario_names_profiles_relative_to_itself(capsys, folder, monkeypatch, tmp_path, value):
    scenario = folder / "s.toml"
    scenario.write_text(
        f'model = "llama-3.1-8b"\ndevices = "1xh200"\nprofiles = {value}\n[workload]\nnum_prompts = 4\n'
    )
    monkeypatch.chdir(tmp_path)
    found, _ = object_of(capsys, "simulate", "--scenario", scenario, "--json")
    assert [file["path"] for file in found["plan"]["profiles"]] == [str(folder / "own.json")]
    assert "bad.json" in refused(capsys, "simulate", "--scenario", scenario, "--set", 'profiles="bad.json"')


def test_explain_names_the_profile(capsys, folder):
    asked = ["explain", "--model", "llama-3.1-8b", "--devices", "1xh200", "--profile", folder / "own.json"]
    found, told = object_of(capsys, *asked, "--json")
    assert told == ""
    own = {row["source"] for row in found["rows"] if row["family"] == "gemm"}
    assert own == {f"h200/vllm/gemm/bf16 [{folder / 'own.json'}]"}
    assert run([str(word) for word in asked]) == 0
    assert f"h200/vllm/gemm/bf16 [{folder / 'own.json'}]" in capsys.readouterr().out


def test_a_profile_that_prices_nothing_is_told(capsys, folder):
    note = f"profile {folder / 'torch.json'} (h200/torch) is not used: --kernel-library is vllm\n"
    flag = ["--profile", folder / "torch.json"]
    engine = ["--model", "llama-3.1-8b", "--devices", "1xh200", *flag]
    plan = ["plan", "llama-3.1-8b", "--devices", "1xh200", *LOAD, *flag, "--max-num-batched-tokens", "2048"]
    sweep = ["sweep", *engine, *LOAD, "--request-rate", "1,2"]
    load = ["--slo", "ttft:5000", "--request-rate", "4"]
    commands = (plan, ["explain", *engine], [*SIMULATE, *flag], sweep, [*plan, "--pareto", "tpot,ttft"])
    for command in (*commands, [*plan, "--capacity", *load]):
        assert object_of(capsys, *command, "--json")[1] == note
    assert object_of(capsys, *SIMULATE, *flag, "--kernel-library", "torch", "--json")[1] == ""


def test_sweeping_over_profiles(capsys, folder):
    engine = ["--model", "llama-3.1-8b", "--devices", "1xh200", *LOAD]
    over = f"profiles={folder / 'own.json'},{folder / 'slow.json.gz'}"
    rows, _ = object_of(capsys, "sweep", *engine, "--over", over, "--json")
    assert rows[1]["duration"] > 1.2 * rows[0]["duration"]


def test_a_machine_outside_the_catalogue_is_planned_for(capsys, tmp_path):
    """Calibrate, plan, replay: the loop closes on a CPU; what its profile does not know is no number."""
    profile = write_small(
        tmp_path / "cpu.json", device="cpu-x-1t", library="torch", families=("gemm", "elementwise", "attention_decode"),
        dtype="fp32", machine=CPU_MACHINE,
    )  # fmt: skip
    model, out = Path(__file__).parents[2] / "examples" / "small-dense" / "config.json", tmp_path / "out"
    machine = ["--devices", "2xcpu", "--kernel-library", "torch", "--profile", profile]
    load = ["--request-rate", "50", *LOAD, "--input-len", "20", "--output-len", "7"]
    found, told = object_of(capsys, "plan", model, *machine, *load, "--out", out, "--json")
    assert told == ""
    assert found["metrics"]["energy_j_per_output_token"] is None
    pool = found["plan"]["pools"][0]
    assert (pool["device"], pool["scheduler"]["cuda_graphs"]) == ("cpu", False)
    page = (out / "report.html").read_text()
    assert "without a price" in page
    assert "No price is known" in page
    again, _ = object_of(capsys, "simulate", out / "plan.json", *load, "--set", "price_per_hour.cpu=0.1", "--json")
    assert again["metrics"]["mean_ttft_ms"] == found["metrics"]["mean_ttft_ms"]
    step, _ = object_of(capsys, "explain", "--model", model, *machine, "--json")
    assert {row["source"] for row in step["rows"] if row["family"] == "gemm"} == {f"cpu/torch/gemm/fp32 [{profile}]"}
    assert "needs the --profile that measured it" in refused(capsys, "plan", model, *machine[:4], *load)
    assert "has no public price" in refused(capsys, "plan", model, *machine, *load, "--objective", "cost-per-token")
