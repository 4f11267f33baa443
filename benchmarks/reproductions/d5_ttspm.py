"""D5: TTSPM's saturation point against counting, and against sampled success.

    python benchmarks/reproductions/d5_ttspm.py

Nothing is fitted. N* by the formula, by adding samples until one more gains at most epsilon (in exact fractions), and
F(N*) beside the success of 200,000 sampled questions (seeded), of which a share `ceiling` can be solved at all.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from simtool.models.accuracy.saturation import Saturation

ROWS = (
    (1.0, 0.5, 0.01),
    (0.9, 0.3, 0.01),
    (0.8, 0.1, 0.005),
    (0.95, 0.05, 0.001),
    (0.6, 0.02, 0.001),
    (0.5, 0.01, 0.01),
)
QUESTIONS = 200_000


def counted(law: Saturation, least_gain: float) -> int:
    """The fewest samples after which one more gains at most this much, by trying."""
    gain, samples = Fraction(law.ceiling) * Fraction(law.rate), 0
    while gain > Fraction(least_gain):
        gain *= 1 - Fraction(law.rate)
        samples += 1
    return samples


def sampled(law: Saturation, samples: int, rng: np.random.Generator) -> float:
    solvable = rng.random(QUESTIONS) < law.ceiling
    return float((solvable & (rng.binomial(samples, law.rate, QUESTIONS) > 0)).mean())


def main() -> None:
    rng = np.random.default_rng(0)
    print("ceiling  rate  epsilon    N*  counted   F(N*)  sampled")
    for ceiling, rate, least in ROWS:
        law = Saturation(ceiling=ceiling, rate=rate)
        found = law.saturated_at(least)
        print(
            f"{ceiling:7} {rate:5} {least:8} {found:5} {counted(law, least):8}"
            f" {law.success(found):7.4f} {sampled(law, found, rng):8.4f}"
        )


if __name__ == "__main__":
    main()
