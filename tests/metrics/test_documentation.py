"""Every key is defined in docs/metrics.md; the trace in docs/traces.md is a trace."""

import re
from pathlib import Path

from simtool.metrics import LATENCIES, PERCENTILES, serving_metrics
from simtool.traces import read_trace
from tests.metrics.runs import random_run

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_key_is_defined() -> None:
    text = (DOCS / "metrics.md").read_text()
    kinds = ("mean", "median", "std", *(f"p{percent}" for percent in PERCENTILES))
    for key in serving_metrics(random_run(0, 10)):
        latency = re.fullmatch(r"([a-z0-9]+)_([a-z0-9]+)_ms", key)
        if latency:
            assert latency[1] in kinds
            assert latency[2] in LATENCIES
            assert f"`{latency[1]}_`" in text
            assert f"`{latency[2]}`" in text
        else:
            assert f"`{key}`" in text, key


def test_the_documented_trace_can_be_read(tmp_path: Path) -> None:
    example = re.search(r"```json\n(.*?)```", (DOCS / "traces.md").read_text(), re.DOTALL)
    assert example
    (tmp_path / "t").write_text(example[1])
    trace = read_trace(tmp_path / "t")
    assert trace.follows.tolist() == [-1, 0]
    assert trace.prefix_block_tokens == 16
    assert trace.source == "where from"
