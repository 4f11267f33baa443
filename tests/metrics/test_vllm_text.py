"""The block and the JSON that `vllm bench serve` prints and saves."""

import json
import math

from simtool.metrics import result_json, serving_metrics, vllm_block
from simtool.traces import read_trace
from tests.metrics.runs import run_of

BLOCK = """\
============ Serving Benchmark Result ============
Successful requests:                     2         
Failed requests:                         0         
Maximum request concurrency:             8         
Request rate configured (RPS):           1.50      
Benchmark duration (s):                  1.45      
Total input tokens:                      200       
Total generated tokens:                  5         
Request throughput (req/s):              1.38      
Request goodput (req/s):                 1.38      
Output token throughput (tok/s):         3.45      
Peak output token throughput (tok/s):    3.00      
Peak concurrent requests:                1.00      
Total token throughput (tok/s):          141.38    
---------------Time to First Token----------------
Mean TTFT (ms):                          375.00    
Median TTFT (ms):                        375.00    
P99 TTFT (ms):                           497.50    
-----Time per Output Token (excl. 1st token)------
Mean TPOT (ms):                          200.00    
Median TPOT (ms):                        200.00    
P99 TPOT (ms):                           200.00    
---------------Inter-token Latency----------------
Mean ITL (ms):                           200.00    
"""  # noqa: W291 - vLLM pads its numbers


def run():
    return run_of([1.0, 2.0], [0.5, 0.25], [[0.1, 0.3], [0.2]])


def test_block_line_for_line() -> None:
    text = vllm_block(serving_metrics(run()), request_rate=1.5, max_concurrency=8, goodput=True)
    assert text.startswith(BLOCK)
    assert text.endswith("\n" + "=" * 50)
    rules = [line for line in text.splitlines() if line[0] in "-="]
    assert {len(line) for line in rules} == {50}


def test_optional_lines_stay_away() -> None:
    text = vllm_block(serving_metrics(run()), latencies=("e2el",), percentiles=(50, 99))
    assert "configured" not in text
    assert "goodput" not in text
    assert "concurrency:" not in text
    assert "----------------End-to-end Latency----------------\nMean E2EL (ms):" in text
    assert "P50 E2EL (ms):" in text


def test_result_is_json_without_nan() -> None:
    nothing = run_of([0.0], [0.1], [[0.1]], refused=(0,))
    saved = result_json(nothing, serving_metrics(nothing), settings={"model_id": "m", "request_rate": 2.0})
    text = json.dumps(saved, allow_nan=False)
    assert json.loads(text)["mean_ttft_ms"] is None
    assert saved["failed"] == 1
    assert isinstance(saved["failed"], int)
    assert math.isclose(float(str(saved["request_rate"])), 2.0)


def test_detailed_result_reads_back_as_a_trace(tmp_path) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(result_json(run(), serving_metrics(run()), save_detailed=True), allow_nan=False))
    trace = read_trace(path)
    assert trace.arrival_s.tolist() == [0.0, 1.0]
    assert trace.output_tokens.tolist() == [3, 2]
