"""Routing traces as people ask for them: a file, or a source that is sampled."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simtool.errors import InputError
from simtool.models.routing.sampling import sample_trace
from simtool.models.routing.shape import MoeShape
from simtool.models.routing.source_text import is_trace_file, parse_source
from simtool.models.routing.trace import RoutingTrace
from simtool.models.routing.trace_file import read_routing

MOST_TOKENS = 10_000_000  # to sample


def asked_trace(
    text: str, shape: MoeShape | None, *, tokens: int, batch: int, prompt_tokens: int = 0, seed: int = 0
) -> RoutingTrace:
    """Read where it is a file, else sampled: `batch` requests that decode side by side, `tokens` in all.

    shape: whose experts (None: the file's, or those that a fitted source was counted on). Raises InputError.
    """
    if Path(text).is_file() or is_trace_file(text):
        return read_routing(Path(text))
    rng = np.random.default_rng(seed)
    parsed, layers = parse_source(text, shape, rng)
    steps = -(-tokens // batch)
    if batch * (prompt_tokens + steps) > MOST_TOKENS:
        rule = f"are {batch * (prompt_tokens + steps):,} tokens to sample, and at most {MOST_TOKENS:,} are"
        raise InputError(f"{batch:,} requests", rule, "fewer --tokens, --prompt-tokens or a smaller --batch")
    return sample_trace(
        parsed, sequences=batch, prompt_tokens=prompt_tokens, output_tokens=steps, rng=rng, layers=layers
    )
