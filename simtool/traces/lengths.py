"""Token lengths drawn from a specification such as `512`, `uniform:100:900`, `lognormal:512:0.9` or `1024*0.8..1`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.traces.numbers import MAX_TOKENS

GRAMMAR = "N, uniform:LOW:HIGH, lognormal:MEDIAN:SIGMA, N*LOW..HIGH (as 1024*0.8..1), or empirical:FILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """A length distribution in tokens.

    uniform: whole numbers from `low` to `high`, both included (low = high: fixed).
    lognormal: median `low` tokens, `sigma` the standard deviation of the logarithm; rounded, at least 1.
    empirical: the rows of the trace file `path`, drawn with replacement.
    """

    kind: Literal["uniform", "lognormal", "empirical"]
    low: float = 1
    high: float = 1
    sigma: float = 0.0
    path: str = ""


def parse_lengths(text: str | int, *, random_range_ratio: float = 0.0) -> Lengths:
    """The distribution that `text` states.

    random_range_ratio r turns a fixed length N into whole numbers from floor(N (1 - r)) to ceil(N (1 + r)), as
    `vllm bench serve --random-range-ratio` does; 0 <= r < 1. Older vLLM (and InferenceMAX) meant [r N, N]: that is
    `N*r..1` here. Raises InputError for anything else.
    """
    text = str(text).strip()
    if not 0 <= random_range_ratio < 1:
        raise InputError(
            random_range_ratio, "random_range_ratio must be at least 0 and below 1", "write N*0.8..1 for [0.8 N, N]"
        )
    number = r"(\d+(?:\.\d+)?)"
    if match := re.fullmatch(number, text):
        low = math.floor(float(match[1]) * (1 - random_range_ratio))
        return _uniform(text, max(low, 1) if float(match[1]) >= 1 else 0, _high(match[1], random_range_ratio))
    if random_range_ratio:
        raise InputError(text, "random_range_ratio needs a fixed length", "leave one of the two out")
    if match := re.fullmatch(rf"uniform:{number}:{number}", text):
        return _uniform(text, float(match[1]), float(match[2]))
    if match := re.fullmatch(rf"{number}\*{number}\.\.{number}", text):
        low, high = (math.floor(float(match[1]) * float(match[part])) for part in (2, 3))
        return _uniform(text, low, high)
    if match := re.fullmatch(rf"lognormal:{number}:{number}", text):
        median, sigma = float(match[1]), float(match[2])
        if not 1 <= median <= MAX_TOKENS or sigma > 10:
            raise InputError(text, "lognormal needs a median of at least 1 token and a sigma of at most 10")
        return Lengths(kind="lognormal", low=median, sigma=sigma)
    if text.startswith("empirical:") and len(text) > len("empirical:"):
        return Lengths(kind="empirical", path=text.removeprefix("empirical:"))
    raise InputError(text, "not a length", f"give {GRAMMAR}")


def _high(number: str, ratio: float) -> float:
    """Upper end of a fixed length with a range ratio; a fraction of a token is an error that _uniform reports."""
    return math.ceil(float(number) * (1 + ratio)) if ratio else float(number)


def _uniform(text: str, low: float, high: float) -> Lengths:
    """Checked uniform lengths."""
    if low != int(low) or high != int(high) or not 1 <= low <= high <= MAX_TOKENS:
        raise InputError(text, f"lengths must be whole, at least 1, and the lower end first (is {low:g} to {high:g})")
    return Lengths(kind="uniform", low=low, high=high)


def draw(lengths: Lengths, count: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """`count` lengths, int32. Empirical ones are drawn by `synthesise`, which pairs inputs with outputs."""
    match lengths.kind:
        case "uniform":
            if lengths.low == lengths.high:
                return np.full(count, int(lengths.low), np.int32)
            return rng.integers(int(lengths.low), int(lengths.high), count, dtype=np.int32, endpoint=True)
        case "lognormal":
            drawn = rng.standard_normal(count)
            drawn *= lengths.sigma
            np.exp(drawn, out=drawn)
            drawn *= lengths.low
            np.rint(drawn, out=drawn)
            return np.clip(drawn, 1, MAX_TOKENS, out=drawn).astype(np.int32)
        case "empirical":
            raise InputError(lengths.path, "empirical lengths are not possible here", f"give {GRAMMAR}")
