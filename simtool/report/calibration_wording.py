"""Operators, rates and errors as words, for the calibration page."""

from __future__ import annotations

from simtool.hardware.kernel_profile import FamilyFit, FitErrors
from simtool.report.style import CATEGORICAL, SLATE
from simtool.report.wording import number

FAMILY_WORDS = {
    "gemm": "GEMM",
    "moe": "MoE experts",
    "attention_prefill": "prefill attention",
    "attention_decode": "decode attention",
    "mla_prefill": "MLA prefill",
    "mla_decode": "MLA decode",
    "elementwise": "elementwise",
    "embedding": "embedding",
    "sampling": "sampling",
}
WANTED_COVERAGE = (0.85, 0.95)  # of the 90% interval
NOISE_RATIO = 2.0  # a held-out error above so many noise floors is flagged

# A colour of its own for each family (in the plan report all attention has one).
_COLOURS = dict(
    zip(
        ("attention_decode", "moe", "gemm", "attention_prefill", "embedding", "elementwise", "mla_decode", "sampling"),
        CATEGORICAL,
        strict=True,
    )
) | {"mla_prefill": "#a9745b"}


def family_words(family: str) -> str:
    """What people call the family."""
    return FAMILY_WORDS.get(family, family.replace("_", " "))


def family_colour(family: str) -> str:
    """The family's colour in every figure of the page."""
    return _COLOURS.get(family, SLATE)


def fit_words(fit: FamilyFit) -> str:
    """ "GEMM bf16"."""
    return f"{family_words(fit.family)} {fit.dtype}"


def mover_words(kind: str) -> str:
    """A workload, copy or collective: "h2d_pinned" as "H2D pinned", "all_reduce" as "all-reduce"."""
    first, _, rest = kind.partition("_")
    if first in ("h2d", "d2h", "hbm"):
        return f"{first.upper()} {rest}".strip()
    return FAMILY_WORDS.get(kind, kind.replace("_", "-"))


def percent(share: float, digits: int = 2) -> str:
    """A share as a percentage of two digits."""
    return f"{number(100 * share, digits)}%"


def rate(value: float, unit: str) -> str:
    """ "989 TFLOP/s"."""
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= factor:
            return f"{number(value / factor)} {prefix}{unit}"
    return f"{number(value)} {unit}"


def flags(errors: FitErrors) -> list[str]:
    """What is not as good as it should be, in words; empty where all is well."""
    found = []
    if errors.noise_points and errors.held_out_median > NOISE_RATIO * errors.noise_median:
        ratio = errors.held_out_median / errors.noise_median if errors.noise_median else float("inf")
        found.append(f"{number(ratio, 2)} × noise")
    if not WANTED_COVERAGE[0] <= errors.coverage_90 <= WANTED_COVERAGE[1]:
        found.append("interval too narrow" if errors.coverage_90 < WANTED_COVERAGE[0] else "interval too wide")
    return found
