"""The benchmark sends the simulated workload: the same numbers drawn by the client, or the very requests."""

import json
from dataclasses import replace

import numpy as np
import pytest

from simtool.asking import workload_of
from simtool.emit import Request, emit
from simtool.emit.benchmark import Traffic
from simtool.emit.option_table import load_table
from simtool.errors import InputError
from simtool.scenario import WorkloadSection
from tests.emit.plans import EXAMPLE


def traffic(replay=False, **keys) -> Traffic:
    section = WorkloadSection(**keys)
    return Traffic(section=section, workload=workload_of(section), replay=replay)


def benchmark(sent: Traffic, target="vllm", **request):
    return emit(EXAMPLE, Request(target=target, **request), sent).files


def test_synthetic_requests_are_drawn_by_the_client_from_the_same_numbers():
    sent = traffic(num_prompts=200, request_rate=4.5, burstiness=0.5, max_concurrency=32, seed=7, prefix_len=64)
    script = benchmark(sent)["benchmark.sh"]
    for line in (
        "--dataset-name random",
        "--random-input-len 1024",
        "--random-output-len 128",
        "--random-prefix-len 64",
        "--request-rate 4.5",
        "--burstiness 0.5",
        "--num-prompts 200",
        "--seed 7",
        "--max-concurrency 32",
        "--ignore-eos",
        "--base-url http://127.0.0.1:8000",
    ):
        assert f"  {line}" in script


def test_all_at_once_is_an_infinite_rate_without_burstiness():
    script = benchmark(traffic(num_prompts=10))["benchmark.sh"]
    assert "--request-rate inf" in script
    assert "--burstiness" not in script


def replayed(files) -> list[dict]:
    return [json.loads(line) for line in files["trace.jsonl"].splitlines()]


def test_lengths_that_no_flag_states_are_replayed_request_by_request():
    sent = traffic(num_prompts=50, input_len="lognormal:512:0.9", request_rate=2.0, seed=3)
    files = benchmark(sent)
    rows = replayed(files)
    assert [row["input_length"] for row in rows] == sent.workload.input_tokens.tolist()
    assert [row["output_length"] for row in rows] == sent.workload.output_tokens.tolist()
    assert np.allclose([row["timestamp"] for row in rows], sent.workload.arrival_s, atol=1e-6)
    assert len({tuple(row["hash_ids"]) for row in rows}) == 50, "no prompt shares its content"
    assert "--dataset-name timed_trace" in files["benchmark.sh"]
    assert '--dataset-path "$here"/trace.jsonl' in files["benchmark.sh"]


def test_shared_prefixes_are_replayed_as_equal_blocks():
    sent = traffic(num_prompts=40, prefix_len=64, num_prefixes=3, input_len="100")
    rows, block = replayed(benchmark(sent)), sent.workload.prefix_block_tokens
    shared = 64 // block
    assert len({tuple(row["hash_ids"][:shared]) for row in rows}) == 3
    assert all(len(row["hash_ids"]) == -(-row["input_length"] // block) for row in rows)
    private = [number for row in rows for number in row["hash_ids"][shared:]]
    assert len(private) == len(set(private))


def test_a_trace_needs_a_client_that_keeps_recorded_times(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n0,10,5\n1.5,20,6\n", encoding="utf-8")
    sent = traffic(trace=str(path))
    assert [row["timestamp"] for row in replayed(benchmark(sent))] == [0.0, 1.5]
    with pytest.raises(InputError, match=r"replays no recorded times \(--bench-version 0\.24\.0"):
        benchmark(sent, engine_version="0.19.1")
    assert "trace.jsonl" in benchmark(sent, engine_version="0.19.1", bench_version="0.33.0")


@pytest.mark.parametrize(
    ("keys", "reason"),
    [({"turns": 2}, "waits for the turn"), ({"warmup_requests": 5}, "count every")],
)
def test_what_no_client_sends_is_refused(keys, reason):
    with pytest.raises(InputError, match=reason):
        benchmark(traffic(num_prompts=10, **keys))


def test_sglangs_client_has_its_own_options_and_limits():
    script = benchmark(traffic(num_prompts=10, request_rate=2.0), "sglang")["benchmark.sh"]
    assert "python3 -m sglang.bench_serving" in script
    assert "--random-range-ratio 1.0" in script
    with pytest.raises(InputError, match="Poisson alone"):
        benchmark(traffic(num_prompts=10, request_rate=2.0, burstiness=0.5), "sglang")
    script = benchmark(traffic(num_prompts=10, request_rate=2.0, burstiness=0.5), "sglang", bench_client="vllm")
    assert "--backend openai" in script["benchmark.sh"]


def test_samples_of_a_prompt_are_sent_as_requests_of_equal_blocks():
    sent = traffic(num_prompts=4, n=3, input_len="40", request_rate=2.0)
    files = benchmark(sent)
    rows = replayed(files)
    assert "--num-prompts 12" in files["benchmark.sh"]
    assert len({tuple(row["hash_ids"][:2]) for row in rows}) == 4
    assert [row["timestamp"] for row in rows[::3]] == [row["timestamp"] for row in rows[2::3]]
    with pytest.raises(InputError, match=r"each prompt is sampled 3 times.*--bench-client vllm"):
        benchmark(sent, "sglang")


def test_a_replay_can_be_asked_for():
    assert len(replayed(benchmark(traffic(num_prompts=12, replay=True)))) == 12


def test_the_executor_s_replicas_get_their_share_of_the_requests():
    files = benchmark(traffic(num_prompts=11), "torchrun")
    assert [files[f"trace-{number}.jsonl"].count("\n") - 1 for number in (0, 1)] == [6, 5]
    assert '--trace "$here"/trace-1.jsonl' in files["launch.sh"]


def test_the_executor_needs_requests_that_can_be_dealt_out():
    with pytest.raises(InputError, match="requests of a file"):
        emit(EXAMPLE, Request(target="torchrun"))
    with pytest.raises(InputError, match=r"max_concurrency = 4: .*a closed loop"):
        benchmark(traffic(num_prompts=10, max_concurrency=4), "torchrun")
    with pytest.raises(InputError, match=r"turns: .*the one before"):
        benchmark(traffic(num_prompts=10, turns=2), "torchrun")
    with pytest.raises(InputError, match=r"router least_outstanding: .*round-robin routing"):
        emit(replace(EXAMPLE, router="least_outstanding"), Request(target="torchrun"), traffic(num_prompts=10))


def test_every_client_option_is_in_its_table():
    assert load_table("vllm", "0.19.1").has("vllm bench serve", "--dataset-name", "timed_trace") is False
    assert load_table("vllm", "0.24.0").has("vllm bench serve", "--dataset-name", "timed_trace") is True
