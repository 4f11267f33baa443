"""simtool execute: a plan run for real from the command line, and what it refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the executor runs on torch")

from simtool.calibration.executor.execution_file import load_execution  # noqa: E402
from simtool.calibration.executor.prompts import prompt_ids  # noqa: E402
from simtool.cli import run  # noqa: E402
from simtool.models.reduced import plan_architecture  # noqa: E402
from simtool.models.routing.trace_file import read_routing  # noqa: E402
from simtool.run import engines_of  # noqa: E402
from simtool.simulator.offload.clock import OffloadClock  # noqa: E402
from simtool.simulator.routing import ROUTERS  # noqa: E402
from simtool.simulator.run import simulate_engines  # noqa: E402
from simtool.simulator.setup import build_state  # noqa: E402
from simtool.simulator.stepped import SteppedCluster  # noqa: E402
from tests.calibration.executor.reference import Reference  # noqa: E402
from tests.cli.test_bad_input import refuse  # noqa: E402
from tests.hardware.own_profile import CPU_MACHINE, write_small  # noqa: E402

DENSE, MOE = "examples/small-dense/config.json", "examples/small-moe/config.json"
LOAD = ["--num-prompts", "6", "--input-len", "uniform:8:60", "--output-len", "uniform:2:6"]
SMALL = ["--max-num-seqs", "4", "--max-num-batched-tokens", "48", "--layers", "2"]


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """What every command says: a CPU with a profile that is made up, for prices do not matter here."""
    path = tmp_path_factory.mktemp("profile") / "p.json"
    profile = write_small(path, device="cpu-a", library="torch", dtype="fp32", machine=CPU_MACHINE)
    return ["--devices", "2xcpu", "--kernel-library", "torch", "--profile", str(profile), "--on", "cpu"]


def execute(asked, out, *words, model=DENSE):
    assert run(["execute", "--model", model, *asked, *LOAD, *SMALL, *words, "--out", str(out)]) == 0
    return load_execution(out)


@pytest.mark.parametrize("model", [DENSE, MOE])
def test_tokens_are_those_of_a_plain_forward_pass(asked, tmp_path, model):
    execution = execute(asked, tmp_path / "run", model=model)
    reference = Reference(plan_architecture(execution.plan, execution.layers))
    for request, tokens in enumerate(execution.tokens):
        prompt = prompt_ids(execution.workload, request, reference.arch.vocab_size, 0).tolist()
        assert tokens.tolist() == reference.generate(prompt, len(tokens))
    written = {"execution.json", "plan.json", "requests.npz", "result.json", "schedule.npz", "timeline.json"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == written | {"trace.jsonl"}


def test_a_schedule_of_something_else_is_refused(asked, tmp_path, capsys):
    """Another model's, and a file that is none."""
    path, words = tmp_path / "s.json", ["execute", "--model", DENSE, *asked, *LOAD, *SMALL]
    kind = {"layers": 1, "operators": ["o"], "launches": []}
    kind["launches"] = [{"layer": 0, "operators": ["o"], "nano_batches": [0], "stream": 0, "after": []}]
    own = str(Path(DENSE).resolve())
    degrees = {"tp": 1, "pp": 1, "dp": 1, "ep": 1}
    schedule = {"model": MOE, "batch": "decode:4x8", **degrees, "nano_batches": 1, "kinds": [kind]}
    for content, named in (
        ({"simtool_schedule": 1, "schedule": schedule}, "hint solve the schedule for this plan"),
        ({"simtool_schedule": 1, "schedule": {**schedule, "model": own}}, "the schedule has"),
        ({"simtool_schedule": 1, "schedule": {**schedule, "model": own, "tp": 2}}, "these degrees"),
        ({"simtool_schedule": 1}, "is no schedule"),
    ):
        path.write_text(json.dumps(content), encoding="utf-8")
        assert named in refuse(capsys, *words, "--schedule", str(path))


def test_all_at_once_the_schedule_is_the_simulated_one(asked, tmp_path):
    execution = execute(asked, tmp_path / "run", "--num-gpu-blocks-override", "12")
    engines = engines_of(execution.plan, execution.workload, layers=execution.layers)
    simulated = simulate_engines(engines, execution.workload, exact_steps=True, record_steps=True)
    for name in ("prefill_tokens", "decode_requests", "kv_blocks", "waiting", "running"):
        assert np.array_equal(execution.result.steps[name], simulated.steps[name]), name
    assert np.array_equal(execution.result.preemptions, simulated.preemptions)
    steps = execution.result.steps
    assert np.all(steps["host_s"] > 0)
    assert np.allclose(
        sum(steps[n] for n in steps if n.endswith("_s") and n not in ("start_s", "end_s")),
        steps["end_s"] - steps["start_s"],
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    "words",
    [["-tp", "2"], ["--replicas", "2"], ["--enable-prefix-caching"], ["--scheduling", "prefill_first"], ["-pp", "2"]],
    ids=" ".join,
)
def test_no_plan_changes_the_tokens(asked, tmp_path, words):
    one, other = execute(asked, tmp_path / "one"), execute(asked, tmp_path / "other", *words)
    assert all(np.array_equal(a, b) for a, b in zip(one.tokens, other.tokens, strict=True))


def test_experts_may_live_in_host_memory(asked, tmp_path):
    one = execute(asked, tmp_path / "one", model=MOE)
    other = execute(asked, tmp_path / "other", "--offload", "lru,slots=2", model=MOE)
    assert all(np.array_equal(a, b) for a, b in zip(one.tokens, other.tokens, strict=True))
    assert other.result.steps["copies_s"].sum() > 0
    assert 0 < other.result.offload.hits.sum() < other.result.offload.needed.sum()


@pytest.mark.parametrize("words", [[], ["--num-gpu-blocks-override", "12"]], ids=["room", "preempted"])
@pytest.mark.parametrize("policy", ["lru", "lfu"])
def test_hits_are_the_simulator_s(asked, tmp_path, policy, words):
    """With the routing that was recorded, the simulated run hits and misses the same experts in every step."""
    routes = tmp_path / "r.npz"
    words = [*words, "--offload", f"{policy},slots=3"]
    ran = execute(asked, tmp_path / "run", *words, "--record-routing", str(routes), model=MOE)
    workload = replace(ran.workload, expert_routing=str(routes))
    (engine,) = engines_of(ran.plan, workload, layers=ran.layers)
    clock = ReplayedClock([engine], ran.result.steps["end_s"] - ran.result.steps["start_s"])
    state = build_state([engine], workload, exact_steps=True, reserve_full=1)
    SteppedCluster(state, workload, ROUTERS["round_robin"], clock).run()
    simulated, measured = clock.use(), ran.result.offload
    for name in ("needed", "hits", "loads", "layer_needed", "layer_hits"):
        assert getattr(simulated, name).tolist() == getattr(measured, name).tolist(), name
    assert 0 < measured.hits.sum() < measured.needed.sum()


class ReplayedClock(OffloadClock):
    """The stores of a simulated run, whose steps take what they took in a real one."""

    def __init__(self, engines, seconds):
        super().__init__(engines)
        self.seconds = iter(seconds)

    def end(self, group, lane):
        return next(self.seconds)


@pytest.mark.parametrize("words", [[], ["--num-gpu-blocks-override", "12"]], ids=["room", "preempted"])
def test_routing_is_recorded_step_by_step(asked, tmp_path, words):
    execution = execute(asked, tmp_path / "run", *words, "--record-routing", str(tmp_path / "r.npz"), model=MOE)
    trace, schedule = read_routing(tmp_path / "r.npz"), execution.schedule
    reference = Reference(plan_architecture(execution.plan, execution.layers))
    truth = []
    for request, tokens in enumerate(execution.tokens):
        prompt = prompt_ids(execution.workload, request, reference.arch.vocab_size, 0).tolist()
        truth.append(reference.routing(prompt + tokens.tolist()).numpy())
    rows = zip(trace.sequence, trace.position, strict=True)
    assert np.array_equal(trace.experts, [truth[request][place] for request, place in rows])
    scheduled = np.bincount(schedule.step, schedule.new_tokens)
    assert np.array_equal(np.bincount(trace.step), scheduled)
    assert trace.tokens == schedule.new_tokens.sum()


def test_json_and_notes(asked, capsys):
    assert run(["execute", "--model", DENSE, *asked, *LOAD, *SMALL, "--json"]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert found["layers"] == 2
    assert found["metrics"]["completed"] == 6
    assert (found["settings"]["activation_dtype"], found["settings"]["offload_experts"]) == ("fp32", 0)
    for words in ("2 of 6 layers", "and the plan is for cpu (cpu-a)"):
        assert words in told.err


def test_what_does_not_happen_is_told_and_kept(asked, tmp_path, capsys):
    words = ["--dtype", "bf16", "--overlap", "shared-experts", "--run-seed", "5"]
    execution = execute(asked, tmp_path / "run", *words)
    told = capsys.readouterr().err
    for note in (
        "KV cache in bf16, not fp32",
        "activations and float weights in bf16, not the model's fp32",
        "no overlap: the model has no shared experts",
    ):
        assert note in told
        assert any(note in kept for kept in execution.notes)
    ran = execution.settings
    assert (ran.activation_dtype, ran.weight_dtypes, ran.kv_dtype) == ("bf16", ("bf16",), "bf16")
    assert (ran.device, ran.offload_experts, ran.overlap, ran.seed) == ("cpu", 0, False, 5)
    saved = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert [len(gaps) + 1 for gaps in saved["itls"]] == saved["output_lens"]


def test_a_kineto_profile_on_request(asked, tmp_path, capfd):
    execute(asked, tmp_path / "run", "--kineto")
    assert "USDT" not in capfd.readouterr().err
    events = json.loads((tmp_path / "run" / "kineto.json").read_text(encoding="utf-8"))["traceEvents"]
    assert any(event.get("name", "").startswith("aten::") for event in events)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--on", "tpu"], "tpu"),
        (["--layers", "99"], "layers must be between 1 and the 6"),
        (["--dtype", "fp8"], "fp8"),
        (["--kineto"], "--out"),
        (["--record-routing", "r.npz"], "has no routed experts"),
        (["--record-routing", "r.txt"], "no suffix of a routing trace"),
        (["--record-routing", "absent/r.npz"], "folder does not exist"),
        (["--scheduling", "static"], "static"),
        (["--replicas", "3"], "3 x cpu"),
        (["--run-seed", "-1"], "run-seed"),
        (["--offload", "lru,slots=-2"], "out of range"),
        (["--offload", "lru,slots=2"], "no routed experts"),
        (["--offload", "static-cpu,slots=2"], "not executed"),
        (["--weight-dtype", "fp8"], "fp8 weights on a CPU"),
        pytest.param(
            ["--on", "cuda"], "sees no GPU", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
        ),
    ],
)
def test_what_cannot_run_is_told(capsys, asked, words, told):
    assert told in refuse(capsys, "execute", "--model", DENSE, *asked, *LOAD, *words)


def test_routing_of_several_ranks_is_not_recorded(capsys, asked, tmp_path):
    words = ["--record-routing", tmp_path / "r.npz", "-tp", "2"]
    assert "replicas of one device" in refuse(capsys, "execute", "--model", MOE, *asked, *LOAD, *SMALL, *words)
    assert list(tmp_path.iterdir()) == []


def test_a_model_with_parts_that_are_not_executed_is_named(capsys, asked, tmp_path):
    message = refuse(
        capsys, "execute", "--model", "gemma-2-2b", *asked, *LOAD, "--layers", "2", "--out", tmp_path / "o"
    )
    assert "does not run" in message
    assert not (tmp_path / "o").exists()


def started(asked, out, *words):
    """A run of two processes that takes long, in a process group of its own."""
    code = "import sys; from simtool.cli import main; main()"
    load = ["--num-prompts", "60", "--input-len", "400", "--output-len", "200"]
    command = [sys.executable, "-c", code, "execute", "--model", DENSE, *asked, *load, *words, "--out", str(out)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path.cwd(), start_new_session=True)


def children_of(process):
    """The ranks that it started (the spawn helper is none)."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = path.joinpath("stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]
            words = path.joinpath("cmdline").read_bytes()
        except OSError:
            continue
        if int(parent) == process.pid and b"spawn_main" in words:
            found.append(int(path.name))
    return found


def awaited_children(process):
    deadline = time.monotonic() + 60
    while not (found := children_of(process)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def stopped(process, tmp_path, children):
    """(exit code, what it said) of a process that was sent a signal; nothing of it is left."""
    _, told = process.communicate(timeout=60)
    assert "Traceback" not in told
    deadline = time.monotonic() + 10
    while (left := [child for child in children if Path(f"/proc/{child}").exists()]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left
    assert list(tmp_path.iterdir()) == []
    return process.returncode, told.splitlines()


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc")


@needs_proc
def test_a_killed_rank_is_one_error_and_nothing_is_left(asked, tmp_path):
    process = started(asked, tmp_path / "out", "-tp", "2")
    children = awaited_children(process)
    time.sleep(8.0)  # until they serve
    os.kill(children[0], signal.SIGKILL)
    code, told = stopped(process, tmp_path, children)
    errors = [line for line in told if line.startswith("ERROR")]
    assert (code, len(errors)) == (1, 1), "a crash is no bad input"
    assert "killed" in errors[0]


@needs_proc
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after_s", [0.3, 8.0], ids=["while ranks start", "while they serve"])
def test_a_stopped_run_says_one_line_and_leaves_nothing(asked, tmp_path, signum, after_s):
    process = started(asked, tmp_path / "out", "-tp", "2")
    children = awaited_children(process)
    time.sleep(after_s)
    if signum == signal.SIGINT:  # a terminal's Ctrl-C reaches all of them; it is their parent's
        for child in children:
            os.kill(child, signum)
        time.sleep(1.0)
    process.send_signal(signum)
    code, told = stopped(process, tmp_path, children)
    assert code == 128 + signum
    assert told[-1] == "interrupted; nothing was written"
    assert not [line for line in told if line.startswith("ERROR")], told
