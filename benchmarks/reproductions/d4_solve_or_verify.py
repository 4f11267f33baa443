"""D4: success of self-consistency and of a generative verifier against what they cost, S (1 + lambda V).

    python benchmarks/reproductions/d4_solve_or_verify.py [../shared/data]

Llama-3.1-8B on 128 problems of MATH, digitised (0.2 points). Fitted, as the row allows: the Beta of solve rates and the
share of wrong votes that one wrong answer gets (its spread over questions too), the verifier's mean rates, and how much
checks of one answer agree. On these rows: self-consistency at FITTED_VOTES, the verifier with V in FITTED_CHECKS.
The other rows are held out. More than 128 votes are reckoned as votes without end.
"""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares
from scipy.special import expit

from simtool.models.accuracy.majority import majority_chance
from simtool.models.accuracy.solve_rates import BetaRates
from simtool.models.accuracy.verifier import Verifier, best_of

FITTED_VOTES = (1, 4, 16, 64, 16384)
FITTED_CHECKS = (1, 4, 16)
TABLE = "misc_published_tables/genrm_sc_llama31_8b_math128_digitised.csv"
QUESTIONS, RIVALS, LEVELS = 32, 5, 100
EXACT_VOTES = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """S answers, V checks of each (0: a vote), cost in answers, success in points of 100."""

    answers: int
    checks: int
    cost: float
    success: float

    @property
    def fitted(self) -> bool:
        return self.checks in FITTED_CHECKS if self.checks else self.answers in FITTED_VOTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What is declared of questions, wrong answers and the verifier.

    rival: the chance that a wrong vote is for the commonest wrong answer; all others are scattered.
    """

    rates: BetaRates
    rival: BetaRates
    verifier: Verifier


def read_points(folder: Path) -> list[Point]:
    with (folder / TABLE).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    return [
        Point(
            answers=int(row["n_solutions"]),
            checks=int(row["n_verifications"]),
            cost=int(row["n_solutions"]) * (1 + int(row["lambda_"]) * int(row["n_verifications"])),
            success=float(row["success_pct"]),
        )
        for row in rows
    ]


def vote_success(setup: Setup, votes: int) -> float:
    """Points of self-consistency: the mean over solve rates and rivals."""
    if votes > EXACT_VOTES:  # right where p > share (1 - p)
        shares = setup.rival.rates(LEVELS)
        return 100 * float(np.mean(setup.rates.above(shares / (1 + shares))))
    rates, rivals = setup.rates.rates(QUESTIONS), setup.rival.rates(RIVALS)
    chances = [majority_chance(p, [(1 - p) * share], votes) for p in rates for share in rivals]
    return 100 * float(np.mean(chances))


def success(setup: Setup, point: Point) -> float:
    if not point.checks:
        return vote_success(setup, point.answers)
    return 100 * float(best_of(setup.rates.rates(LEVELS), point.answers, setup.verifier, point.checks).mean())


def unpack(base: np.ndarray, rival: np.ndarray) -> Setup:
    alpha, beta = np.exp(base[:2])
    rival_alpha, rival_beta = np.exp(rival)
    true_positive, false_positive, right, wrong = expit(base[2:])
    return Setup(
        rates=BetaRates(alpha=float(alpha), beta=float(beta)),
        rival=BetaRates(alpha=float(rival_alpha), beta=float(rival_beta)),
        verifier=Verifier(
            true_positive=float(true_positive),
            false_positive=float(false_positive),
            right_agreement=float(right),
            wrong_agreement=float(wrong),
        ),
    )


def fit_verifier(points: list[Point]) -> np.ndarray:
    """Solve rates and verifier, float64[6]: least squares of points of success on the fitted rows that have checks."""
    used = [point for point in points if point.fitted and point.checks]

    def missing(values: np.ndarray) -> list[float]:
        setup = unpack(values, np.zeros(2))
        return [success(setup, point) - point.success for point in used]

    start = [-0.5, 0.2, 1.0, -0.5, -1.0, -1.0]
    return np.asarray(least_squares(missing, start, bounds=(-6.0, 6.0), diff_step=1e-4).x)


def fit_rivals(points: list[Point], base: np.ndarray) -> np.ndarray:
    """The law of the rival's share, float64[2], on the fitted rows of votes."""
    used = [point for point in points if point.fitted and not point.checks]

    def missing(rival: np.ndarray) -> list[float]:
        return [success(unpack(base, rival), point) - point.success for point in used]

    return np.asarray(least_squares(missing, [0.5, 1.0], bounds=(-6.0, 6.0), diff_step=1e-3, max_nfev=12).x)


def crossovers(points: list[Point], at: dict[Point, float]) -> tuple[float, float]:
    """Cost of the verifier that first reaches 128 votes, over theirs; points that it gains at the largest cost."""
    votes = next(point for point in points if not point.checks and point.answers == 128)
    checked = sorted((point for point in points if point.checks), key=lambda point: point.cost)
    first = next((point.cost for point in checked if at[point] >= at[votes] - 0.3), float("inf"))  # reading error
    return first / votes.cost, max(at[point] for point in checked) - at[votes]


def main() -> None:
    points = read_points(Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data"))
    base = fit_verifier(points)
    setup = unpack(base, fit_rivals(points, base))
    print(f"fitted: {setup}")
    at = {point: success(setup, point) for point in points}
    print("S, V, cost: published, simulated, error in points")
    for point in points:
        note = "  fitted" if point.fitted else ""
        error = at[point] - point.success
        print(
            f"   {point.answers:6} {point.checks:3} {point.cost:7.0f} {point.success:6.2f} {at[point]:6.2f}"
            f" {error:+6.2f}{note}"
        )
    for name, kept in (("fitted", True), ("held out", False)):
        errors = [abs(at[point] - point.success) for point in points if point.fitted == kept]
        print(f"   {name}: median {np.median(errors):.2f}, worst {max(errors):.2f} of {len(errors)} rows")
    table = {point: point.success for point in points}
    for name, said in (("the table", table), ("simulated", at)):
        times, gain = crossovers(points, said)
        print(
            f"{name}: the verifier reaches 128 votes at {times:.1f} times their cost;"
            f" at 130 times it gains {gain:+.1f} points"
        )


if __name__ == "__main__":
    main()
