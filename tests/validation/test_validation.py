"""The validation scripts: their arithmetic, their readers, and that the page names commands that exist."""

import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.validation import (
    apex_order,
    received_experts,
    sharegpt_rtx,
    silicon,
    splitwise_a100,
    summary,
    trtllm_offline,
)
from benchmarks.validation.comparison import Row, errors_of, errors_text, rows_text
from simtool.errors import InputError
from tests.shared_data import SHARED, needs_shared

ROOT = Path(__file__).resolve().parents[2]
ROW = Row(name="run", quantity="tpot", predicted=11.0, measured=10.0)


def test_errors_of_known_rows():
    rows = [replace(ROW, predicted=predicted) for predicted in (9.0, 10.0, 12.0)]
    found = errors_of(rows)
    assert (found.rows, found.median, found.worst, found.bias) == pytest.approx((3, 0.1, 0.2, 0.0))
    assert "tpot" in errors_text(rows)
    assert "+10.0%" in rows_text([ROW])


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_a_measurement_that_means_nothing_is_refused(bad):
    with pytest.raises(InputError):
        errors_of([replace(ROW, measured=bad)])
    with pytest.raises(InputError):
        errors_of([])


def test_only_the_numbers_of_the_page_are_replaced():
    page = f"before\n{summary.BEGIN}\nold\n{summary.END}\nafter"
    assert summary.rewritten(page, "new") == f"before\n{summary.BEGIN}\nnew\n{summary.END}\nafter"
    with pytest.raises(ValueError, match="unpack"):
        summary.rewritten("no marks", "new")


def test_every_command_of_the_page_exists():
    page = (ROOT / "docs" / "validation.md").read_text(encoding="utf-8")
    modules = set(re.findall(r"python -m\s+([\w.]+)", page))
    assert len(modules) > 4
    for module in modules:
        assert importlib.util.find_spec(module) is not None, module
    for script in set(re.findall(r"\| `(\w+)` \|", page)):
        assert importlib.util.find_spec(f"benchmarks.validation.{script}") is not None, script


@needs_shared
def test_tables_are_read_whole():
    data = SHARED / "data"
    assert len(silicon.read_runs(data)) == 21
    assert len(trtllm_offline.read_runs(data)) == 133
    assert len(splitwise_a100.read_points(data)) > 20
    assert apex_order.read_trace(data).num_requests == 512
    assert len(list(received_experts.read_points(data))) == 78
    run = sharegpt_rtx.read_run(data, "RTX4090")
    assert run.workload.num_requests == 300
    assert run.theirs["TPOT Mean"] == 32.5
    assert run.plan.pools[0].kv.num_gpu_blocks == 2588


@needs_shared
def test_order_of_plans_is_right():
    rows = apex_order.compare(SHARED / "data")
    assert apex_order.order(rows, measured=False) == apex_order.order(rows, measured=True)


@needs_shared
def test_closed_loop_rows_stay_within_what_is_claimed():
    runs = [run for run in silicon.read_runs(SHARED / "data") if float(run["concurrency"]) <= 8]
    rows = silicon.compare(runs)
    assert errors_of([row for row in rows if row.quantity == "tpot"]).median < 0.08
    assert errors_of([row for row in rows if row.quantity == "ttft"]).median < 0.25
