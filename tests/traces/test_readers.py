"""Public trace formats: what is read, what is refused, and where the error points."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from simtool.errors import InputError
from simtool.traces import read_trace
from tests.shared_data import SHARED, needs_shared

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
BURST = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"


def write(tmp_path: Path, text: str | bytes, name: str = "trace") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def mooncake(timestamp: float, length: int, ids: list[int], output: int = 5) -> str:
    row = {"timestamp": timestamp, "input_length": length, "output_length": output, "hash_ids": ids}
    return json.dumps(row) + "\n"


def test_azure_2023(tmp_path: Path) -> None:
    text = AZURE + "2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:15:50.9951690,396,109"
    trace = read_trace(write(tmp_path, text))
    np.testing.assert_allclose(trace.arrival_s, [0.0, 4.314579], atol=1e-9)
    assert trace.input_tokens.tolist() == [374, 396]
    assert trace.output_tokens.tolist() == [44, 109]


def test_azure_2024_zones_mean_the_same_instant(tmp_path: Path) -> None:
    text = AZURE + "2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 02:00:01+02:00,10,5\n2024-05-10T00:00:02Z,7,5\n"
    trace = read_trace(write(tmp_path, text))
    np.testing.assert_allclose(trace.arrival_s, [0.0, 0.99007, 1.99007], atol=1e-9)


def test_azure_utc_takes_the_fast_path_alike(tmp_path: Path) -> None:
    rows = [f"2024-05-10 00:00:{second:02d}.5+00:00,10,5" for second in range(30)]
    trace = read_trace(write(tmp_path, AZURE + "\n".join(rows)))
    np.testing.assert_allclose(trace.arrival_s, np.arange(30))


def test_rows_out_of_order_are_sorted_stably(tmp_path: Path) -> None:
    text = "arrival_s,input_tokens,output_tokens\n2,1,1\n1,2,1\n2,3,1\n1,4,1\n"
    assert read_trace(write(tmp_path, text)).input_tokens.tolist() == [2, 4, 1, 3]


def test_burstgpt_drops_failed_requests_and_says_how_many(tmp_path: Path) -> None:
    text = BURST + "5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,1087,0,1087,API log\n46.5,GPT-4,3,7,10,API log\n"
    trace = read_trace(write(tmp_path, text))
    assert trace.arrival_s.tolist() == [0.0, 41.5]
    assert "1 rows without output tokens dropped" in trace.source


def test_mooncake_ids_become_dense_blocks_of_the_full_prompt(tmp_path: Path) -> None:
    text = mooncake(0, 1200, [7, 9, 12]) + mooncake(500, 1024, [7, 9]) + mooncake(1500, 700, [40, 41])
    trace = read_trace(write(tmp_path, gzip.compress(text.encode()), "t.jsonl.gz"))
    assert trace.arrival_s.tolist() == [0.0, 0.5, 1.5]
    assert trace.prefix_block_tokens == 512
    assert trace.prefix_offsets.tolist() == [0, 2, 4, 5]  # 1200 tokens fill two blocks
    assert trace.prefix_ids.tolist() == [0, 1, 0, 1, 2]


def test_ids_without_history_are_told_apart_by_it(tmp_path: Path) -> None:
    rows = [
        {"arrival_s": i, "input_tokens": 64, "output_tokens": 1, "prefix": p}
        for i, p in enumerate(([5, 8], [6, 8], [5, 8]))
    ]
    trace = read_trace(write(tmp_path, "".join(json.dumps(row) + "\n" for row in rows)))
    first, second, third = trace.prefix_ids.reshape(3, 2).tolist()
    assert first == third
    assert first[1] != second[1]
    assert sorted({*first, *second}) == [0, 1, 2, 3]


def test_huge_ids_are_made_dense(tmp_path: Path) -> None:
    rows = [{"arrival_s": 0, "input_tokens": 32, "output_tokens": 1, "prefix": p} for p in ([2**62, 3], [2**62])]
    trace = read_trace(write(tmp_path, "".join(json.dumps(row) + "\n" for row in rows)))
    assert sorted(set(trace.prefix_ids.tolist())) == [0, 1]
    assert trace.prefix_ids[0] == trace.prefix_ids[2]


def test_sharegpt_lengths_by_turn_and_by_item(tmp_path: Path) -> None:
    turns = [{"from": "human", "num_tokens": 12}, {"from": "gpt", "num_tokens": 30}, {"from": "human", "num_tokens": 9}]
    text = json.dumps([{"id": "a", "conversations": turns}, {"prompt_len": 5, "output_len": 6}], indent=2)
    trace = read_trace(write(tmp_path, text))
    assert trace.input_tokens.tolist() == [12, 5]
    assert trace.output_tokens.tolist() == [30, 6]
    assert "no arrivals" in trace.source


def test_vllm_result_with_start_times(tmp_path: Path) -> None:
    text = json.dumps(
        {"duration": 3, "input_lens": [5, 6, 7], "output_lens": [2, 0, 3], "start_times": [9.5, 9.0, 11.0], "ttfts": []}
    )
    trace = read_trace(write(tmp_path, text))
    assert trace.arrival_s.tolist() == [0.0, 1.5]
    assert trace.input_tokens.tolist() == [5, 7]


def test_vllm_closed_loop_keeps_its_concurrency(tmp_path: Path) -> None:
    text = json.dumps({"input_lens": [5, 6], "output_lens": [2, 4], "max_concurrency": 10}, indent=4)
    trace = read_trace(write(tmp_path, text))
    assert trace.max_concurrency == 10
    assert not trace.arrival_s.any()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "empty"),
        ("  \n\n", "empty"),
        (AZURE, "no requests"),
        (AZURE + "2023-11-16 18:15:46.68,nan,44\n", "line 2: input tokens = 'nan'"),
        (AZURE + "2023-11-16 18:15:46.68,1,44\n2023-11-16 18:15:47,-3,44\n", "line 3: input tokens = '-3'"),
        (AZURE + "2023-11-16 18:15:46.68,0,44\n", "line 2: input tokens = 0"),
        (AZURE + "2023-11-16 18:15:46.68,1.5,44\n", "line 2: input tokens = '1.5'"),
        (AZURE + "2023-11-16 18:15:46.68,99999999999,44\n", "line 2: input tokens"),
        (AZURE + "2023-11-16 18:15:46.68,5\n", "line 2.*3 fields"),
        (AZURE + "1700000000,5,5\n", "line 2: TIMESTAMP = '1700000000'"),
        (AZURE + "2023-13-16 18:15:46.68,5,5\n", "line 2: TIMESTAMP"),
        (AZURE + "2023-11-16 18:15:46,5,0\n", "1 rows without output"),
        ("TIMESTAMP_ms,ContextTokens,GeneratedTokens\n1,2,3\n", "unknown|missing"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens,Model\n1,2,3,4\n", "column 'Model': unknown"),
        (BURST + "NaN,ChatGPT,472,18,490,x\n", r"line 2: Timestamp \(s\) = 'NaN'"),
        (BURST + "-1,ChatGPT,472,18,490,x\n", "line 2: Timestamp"),
        ("arrival_minutes,input_tokens,output_tokens\n0,1,1\n", "column 'arrival_minutes'.*arrival_s"),
        ("0,12,13\n1,15,16\n", "no header"),
        ("hello world", "none of the known"),
        (mooncake(0.5, 10, [0]), "line 1: timestamp = 0.5.*milliseconds"),
        ("".join(mooncake(i // 50, 10, [i]) for i in range(3000)), "must be milliseconds"),
        (mooncake(0, 10, [0, 1]), "line 1: 2 hash_ids"),
        (mooncake(0, 600, [0, -1]), "line 1: hash_ids"),
        (mooncake(0, 600, [0, 1]) + mooncake(1, 600, [0, 1])[:-20], "line 2.*truncated"),
        (mooncake(-4, 600, [0, 1]), "timestamp"),
        ('{"timestamp_s": 0, "input_length": 1, "output_length": 1}\n', "unknown key"),
        ('{"timestamp": 0, "input_length": 1}\n', "'output_length' is missing"),
        ('{"arrival_s": 0, "input_tokens": null, "output_tokens": 1}\n', "line 1: input_tokens = None"),
        ('{"arrival_s": NaN, "input_tokens": 1, "output_tokens": 1}\n', "line 1: arrival_s = nan"),
        ('{"arrival_ms": 0, "input_tokens": 1, "output_tokens": 1}\n', "unknown key"),
        ('{"arrival_s": 0, "input_tokens": 1, "output_tokens": 1, "follows": 0}\n', "earlier request"),
        ('{"arrival_s": 0, "input_tokens": 1, "output_tokens": 1, "follows": 7}\n', "numbered from 0"),
        ('{"arrival_s": 0, "input_tokens": 1, "output_tokens": 1, "prefix": [1]}\n', "shorter than its prefix"),
        ('{"simtool_trace": 9}\n', "must be 1"),
        ('{"simtool_trace": 1, "speed": 3}\n', "'speed'"),
        ('{"simtool_trace": 1}\n', "no requests"),
        ('[{"conversations": [{"value": "hi"}, {"value": "ho"}]}]', "no tokenizer"),
        ('[{"input_tokens": 4, "output_tokens": 4}, {"inp', "truncated"),
        ('{"input_lens": [1, 2], "output_lens": [1', "truncated"),
        ('{"input_lens": [1, 2], "output_lens": [1]}', "2 input_lens but 1"),
        ('{"request_throughput": 4}', "save-detailed"),
        (b"\xff\xfe\x00 binary", "UTF-8"),
        (gzip.compress(b"x" * 100000, mtime=0)[:60], "truncated or damaged"),
    ],
)  # fmt: skip
def test_bad_traces_say_where_and_why(tmp_path: Path, text: str | bytes, place: str) -> None:
    with pytest.raises(InputError, match=f"(?s){place}"):
        read_trace(write(tmp_path, text))


def test_missing_file_folder_and_format(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_trace(tmp_path / "absent.csv")
    with pytest.raises(InputError, match="folder"):
        read_trace(tmp_path)
    with pytest.raises(InputError, match="known: auto, azure"):
        read_trace(write(tmp_path, AZURE), "azur")


def test_an_error_in_a_later_chunk_has_its_line(tmp_path: Path) -> None:
    rows = ["0,1,1"] * 70_000
    rows[69_000] = "0,1,x"
    path = write(tmp_path, "arrival_s,input_tokens,output_tokens\n" + "\n".join(rows))
    with pytest.raises(InputError, match="line 69002: output_tokens = 'x'"):
        read_trace(path)


@needs_shared
def test_public_traces() -> None:
    azure = read_trace(SHARED / "data/azure_llm_2023/data/AzureLLMInferenceTrace_conv.csv")
    assert azure.num_requests == 19366
    assert 3400 < azure.arrival_s[-1] < 3600
    kimi = read_trace(SHARED / "data/mooncake/FAST25-release/traces/synthetic_trace.jsonl.gz")
    assert kimi.num_requests == 3993
    assert len(kimi.prefix_ids) == int((kimi.input_tokens // 512).sum())


def test_warmup_of_an_unsorted_trace_is_its_first_arrivals(tmp_path: Path) -> None:
    rows = [{"arrival_s": s, "input_tokens": n, "output_tokens": 1} for n, s in ((1, 3.0), (2, 1.0), (3, 2.0))]
    lines = [json.dumps({"simtool_trace": 1, "warmup_requests": 2}), *map(json.dumps, rows)]
    trace = read_trace(write(tmp_path, "\n".join(lines)))
    assert trace.warmup_requests == 2
    assert trace.input_tokens.tolist() == [2, 3, 1]
    lines[0] = json.dumps({"simtool_trace": 1, "warmup_requests": 3})
    with pytest.raises(InputError, match="warmup_requests = 3"):
        read_trace(write(tmp_path, "\n".join(lines)))
