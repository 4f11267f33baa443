"""D1's claims: traffic to the byte on every run, held-out latency within 5% (median), no gain at a prompt of 1K."""

from statistics import median

import pytest

from benchmarks.reproductions import d1_deft_trees as d1
from tests.shared_data import SHARED, needs_shared


@pytest.fixture(scope="module")
def measured():
    folder = SHARED / "data" / "deft"
    trees, each = d1.read_trees(folder), d1.token_bytes("llama-3.1-8b")
    return [(run, d1.replay(trees[run.tree], run.prompt, run.iterations), each) for run in d1.read_runs(folder)]


@needs_shared
def test_traffic_is_the_published_one_to_the_byte(measured):
    assert len(measured) == 36
    assert [d1.kv_bytes(*row) for row in measured] == [run.kv_bytes for run, _, _ in measured]


@needs_shared
def test_half_of_the_runs_predict_the_other_half(measured):
    _, said = d1.predict([(row[0], d1.work(*row)) for row in measured])
    held = [abs(seconds / run.decode_s - 1) for run, seconds, used in said if not used]
    assert len(held) == 36 - 4 * len(d1.FITTED_PROMPTS)
    assert median(held) < 0.05
    gain = {prompt: predicted for prompt, _, predicted in d1.gains(said)}
    assert gain[1000] == pytest.approx(1.0, abs=0.05)
    assert gain[20000] == pytest.approx(2.07, rel=0.05)


def test_a_kernel_that_is_a_line_is_found_again():
    rows = []
    for prompt in (1, 2, 3):
        run = d1.Run(model="", mode="seq", tree=0, prompt=prompt, iterations=10, kv_bytes=0, decode_s=0.5 + prompt)
        rows.append((run, prompt * 7.0))
    assert d1.fit(rows) == pytest.approx((0.05, 7.0))
