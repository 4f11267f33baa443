"""Results made by hand, with the gap of every token known."""

from __future__ import annotations

import numpy as np

from simtool.measured import itl_histogram
from simtool.metrics import Result


def run_of(
    sent_s: list[float],
    ttft_s: list[float],
    gaps_s: list[list[float]],
    *,
    warmup: int = 0,
    refused: tuple[int, ...] = (),
) -> Result:
    """A Result whose request i has these gaps between its tokens (their number + 1 is its output)."""
    rows = len(sent_s)
    sent, ttft = np.array(sent_s, float), np.array(ttft_s, float)
    first = sent + ttft
    finish = first + np.array([sum(gaps) for gaps in gaps_s])
    first[list(refused)] = np.nan
    finish[list(refused)] = np.nan
    kept = [gaps for row, gaps in enumerate(gaps_s) if row not in refused]
    bins, counts = itl_histogram(np.array([gap for gaps in kept for gap in gaps]))
    return Result(
        sent_s=sent,
        scheduled_s=sent.copy(),
        first_token_s=first,
        finish_s=finish,
        input_tokens=np.full(rows, 100, np.int32),
        output_tokens=np.array([len(gaps) + 1 for gaps in gaps_s], np.int32),
        cached_tokens=np.full(rows, 25, np.int32),
        replica=np.zeros(rows, np.int32),
        preemptions=np.arange(rows, dtype=np.int32) % 2,
        itl_bins=bins,
        itl_counts=counts,
        steps={},
        energy_j=1000.0,
        busy_s=3.0,
        num_steps=7,
        devices=4,
        kv_blocks=(100,),
        warmup_requests=warmup,
    )


def random_run(seed: int, rows: int, *, warmup: int = 0, refuse: bool = False) -> Result:
    """A run with random times, and about one in ten requests refused if asked for."""
    random = np.random.default_rng(seed)
    gaps = [random.gamma(2.0, 0.01, random.integers(0, 30)).tolist() for _ in range(rows)]
    refused = tuple(np.flatnonzero(random.random(rows) < 0.1).tolist()) if refuse else ()
    sent = np.cumsum(random.exponential(0.2, rows)).tolist()
    return run_of(sent, random.exponential(0.3, rows).tolist(), gaps, warmup=warmup, refused=refused)
