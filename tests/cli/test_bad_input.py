"""Bad input gives one clear error, the right exit code, and leaves nothing half-written."""

import os
import signal
import subprocess
import sys
import time

import pytest

from simtool.cli import run

PLAN = ["plan", "llama-3.1-8b", "--devices", "1xh200"]


def refuse(capsys, *arguments, code=2):
    """Run the command and return what it says on stderr; nothing may reach stdout."""
    assert run([str(argument) for argument in arguments]) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("ERROR") == 1, told.err
    return " ".join(told.err.split())


def test_unknown_command_and_flag(capsys):
    assert "No such command" in refuse(capsys, "pln")
    assert "No such option" in refuse(capsys, "plan", "--device", "8xh200")
    assert "hint see simtool plan --help" in refuse(capsys, "plan", "--device", "8xh200")


def test_missing_model_or_devices(capsys):
    assert "model: is missing" in refuse(capsys, "plan", "--devices", "8xh200")
    assert "devices: is missing" in refuse(capsys, "plan", "llama-3.1-8b")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--slo", "ttft:fast"], "ttft"),
        (["--slo", "speed:3"], "speed"),
        (["--request-rate", "0"], "request_rate"),
        (["--gpu-memory-utilization", "90"], "gpu_memory_utilization"),
        (["--num-prompts", "0"], "num_prompts"),
        (["--input-len", "many"], "many"),
        (["--objective", "best"], "objective"),
        (["--kernel-library", "tvm"], "kernel_library"),
        (["-tp", "0"], "tensor_parallel_size"),
        (["-tp", "two"], "tensor_parallel_size"),
        (["--set", "workload.rate=3"], "workload.rate: unknown key"),
        (["--set", "nonsense"], "path=value"),
        (["--devices", "8h200"], "did you mean"),
        (["--devices", "8xh2000"], "h2000"),
        (["--input-len", "200000"], "context"),
        (["--devices", "8x"], "nodes x devices"),
        (["--price-per-hour", "l40=3"], "l40: is not in the device catalogue"),
        (["--trace", "absent.csv"], "absent.csv"),
        (["--scenario", "absent.toml"], "absent.toml"),
    ],
)
def test_a_bad_value_is_named(capsys, flags, words):
    assert words in refuse(capsys, *PLAN, *flags)


def test_unknown_model_says_where_the_names_are(capsys):
    assert "simtool models" in refuse(capsys, "plan", "lama-3.1-8b", "--devices", "8xh200")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "t.csv"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-01-01 00:00:00.0000000,nan,5\n", "t.csv"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-01-01 00:00:00.0000000,10\n", "t.csv"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-01-01 00:00:00.0000000,10,0\n", "t.csv"),
        ("a,b,c\n1,2,3\n", "t.csv"),
    ],
)
def test_a_bad_trace_is_refused(capsys, tmp_path, text, words):
    trace = tmp_path / "t.csv"
    trace.write_text(text)
    assert words in refuse(capsys, *PLAN, "--trace", trace)
    assert "t.csv" in refuse(capsys, "trace", "inspect", trace)


def test_trace_and_synthetic_lengths_exclude_each_other(capsys, tmp_path):
    trace = tmp_path / "t.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-01-01 00:00:00.0000000,10,5\n")
    assert "input_len" in refuse(capsys, *PLAN, "--trace", trace, "--input-len", "5")


def test_experts_that_cannot_be_placed(capsys, tmp_path):
    loads = tmp_path / "loads.csv"
    loads.write_text("\ufeff5,3,2,1\n", encoding="utf-8")  # as spreadsheets write it
    place = ["experts", "place", loads, "--gpus", 2]
    for flag, value, words in (
        ("--effort", "nan", "a number of seconds above 0"),
        ("--effort", "-1", "a number of seconds above 0"),
        ("--expert-bytes", "nan", "expert_bytes nan"),
        ("--load-slack", "inf", "load_slack inf"),
        ("--all-layers", "200000000", "from 0 to 10,000"),
        ("--nodes", "100000000", "nodes 100000000: must be from 1 to 65,536"),
    ):
        assert words in refuse(capsys, *place, flag, value)
    out = tmp_path / "out.json"
    assert "the file of the placement" in refuse(capsys, *place, "--out", out, "--page", out)
    assert "cannot be written" in refuse(capsys, *place, "--out", out, "--page", tmp_path / "absent" / "page.html")
    assert not out.exists()
    loads.write_text("1e308,1e308,1,2\n")
    assert "from 0 to 1e+15" in refuse(capsys, *place)


def test_more_than_can_be_sampled_or_solved(capsys, tmp_path):
    sample = ["routing", "sample", "uniform", tmp_path / "trace.npz", "--model", "mixtral-8x7b"]
    assert "--tokens" in refuse(capsys, *sample, "--tokens", 10**12)
    many = refuse(capsys, *sample, "--batch", 10**6, "--prompt-tokens", 100)
    assert "at most 10,000,000" in many
    assert list(tmp_path.iterdir()) == []
    assert "--seconds" in refuse(
        capsys, "overlap", "--model", "llama-3.1-8b", "--devices", "1xh200", "--seconds", "nan"
    )


def test_a_truncated_plan_file(capsys, tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text('{"model": "llama-3.1-8b", "cluster": "1xh2')
    assert "not valid JSON" in refuse(capsys, "simulate", plan)
    plan.write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in refuse(capsys, "simulate", plan)
    assert "cannot be read" in refuse(capsys, "simulate", tmp_path / "absent.json")


@pytest.mark.parametrize("text", ["[" * 200_000, "a = " + "[" * 200_000, "[[1]]", "1" * 5000, "{" * 10])
def test_nesting_and_numbers_without_end_are_refused(capsys, tmp_path, text):
    path = tmp_path / "deep.json"
    path.write_text(text)
    for command in (["simulate", path], [*PLAN, "--trace", path], ["plan", "--scenario", path], ["models", path]):
        assert "deep.json" in refuse(capsys, *command)
    (tmp_path / "c.toml").write_text(text)
    assert "c.toml" in refuse(capsys, "plan", "llama-3.1-8b", "--devices", tmp_path / "c.toml", "--num-prompts", "4")


def test_files_stay_where_the_reader_of_stdout_leaves(tmp_path):
    code = "import os\nfrom simtool.cli import main\nos.environ['NUMBA_DISABLE_JIT'] = '1'\nmain()"
    arguments = ["simulate", "--model", "llama-3.1-8b", "--devices", "1xh200", "--num-prompts", "2", "--out"]
    command = [sys.executable, "-c", code, *arguments, str(tmp_path / "out")]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert child.stdout is not None
    child.stdout.close()
    assert child.wait(60) == 0
    assert (tmp_path / "out" / "plan.json").exists()


def test_a_model_that_does_not_fit_is_infeasible_and_says_memory(capsys):
    told = refuse(capsys, "plan", "llama-3.1-405b", "--devices", "1xl4", "--num-prompts", "4", code=1)
    assert "infeasible" in told
    assert "memory" in told


def test_degrees_beyond_the_cluster_say_so(capsys):
    told = refuse(capsys, *PLAN, "-tp", "3", "--num-prompts", "4", code=1)
    assert "tp 3 takes 3 devices, the cluster has 1" in told


def test_a_dense_model_has_no_experts_to_spread(capsys):
    flags = ["--model", "llama-3.1-8b", "--devices", "2xh200", "-tp", "2", "-ep", "2"]
    assert "no experts" in refuse(capsys, "simulate", *flags, "--num-prompts", "4")


def test_a_run_that_refuses_every_request_is_no_success(capsys):
    flags = ["--model", "llama-3.1-8b", "--devices", "1xh200", "--num-gpu-blocks-override", "1", "--num-prompts", "4"]
    assert run(["simulate", *flags]) == 1
    assert "4 requests were refused" in capsys.readouterr().err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_behind_stdout_is_one_error():
    code = "from simtool.cli import main; main()"
    with open("/dev/full", "w") as full:
        told = subprocess.run([sys.executable, "-c", code, "models"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert told.returncode == 2
    assert told.stderr.startswith("ERROR output: cannot be written: No space left on device")
    assert "Traceback" not in told.stderr


def test_a_reader_that_leaves_is_no_error():
    code = "from simtool.cli import main; main()"
    command = [sys.executable, "-c", code, "models", "--json"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    assert child.stderr.read() == b""
    child.stderr.close()
    assert child.wait(30) == 0


def test_an_infeasible_question_as_json(capsys):
    arguments = ["plan", "llama-3.1-405b", "--devices", "1xl4", "--num-prompts", "4", "--json"]
    assert run(arguments) == 1
    told = capsys.readouterr()
    import json

    assert json.loads(told.out)["plan"] is None
    assert "memory" in told.err


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    told = refuse(capsys, *PLAN, "--num-prompts", "4", "--out", tmp_path / "file" / "out")
    assert "output folder cannot be written" in told
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(capsys, tmp_path):
    tmp_path.chmod(0o500)
    assert "cannot be written" in refuse(capsys, *PLAN, "--num-prompts", "4", "--out", tmp_path / "out")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_leaves_nothing(tmp_path, stop):
    code = (
        "import sys, time\nfrom simtool import cli, cli_plan\n"
        "def slow(*_):\n    print('started', file=sys.stderr, flush=True)\n    time.sleep(60)\n"
        "cli_plan._answer = slow\ncli.main()\n"
    )
    command = [sys.executable, "-c", code, *PLAN, "--out", str(tmp_path / "out")]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    assert child.stderr.readline() == "started\n"
    time.sleep(0.05)
    child.send_signal(stop)
    out, err = child.communicate(timeout=30)
    assert child.returncode == 128 + stop
    assert (out, err) == ("", "interrupted; nothing was written\n")
    assert list(tmp_path.iterdir()) == []
