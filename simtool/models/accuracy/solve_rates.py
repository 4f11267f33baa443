"""BetaRates, PassCounts: how often one sample solves each question of a set."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincc, betaincinv, betaln, gammaln

from simtool.errors import InputError

Floats = NDArray[np.float64]
_MOST_ROWS = 1_000_000
_COLUMNS = ("question", "tries", "solved")


@dataclass(frozen=True, slots=True, kw_only=True)
class BetaRates:
    """A question's chance to be solved by one sample is a draw of Beta(alpha, beta)."""

    alpha: float
    beta: float

    def __post_init__(self) -> None:
        if not (self.alpha > 0.0 and self.beta > 0.0):
            raise InputError((self.alpha, self.beta), "the parameters of a Beta are above 0")

    @property
    def mean(self) -> float:
        """Success of a single sample."""
        return self.alpha / (self.alpha + self.beta)

    def coverage(self, samples: float) -> float:
        """Share of questions that any of so many samples solves: 1 − B(α, β + k) / B(α, β)."""
        return float(-np.expm1(betaln(self.alpha, self.beta + samples) - betaln(self.alpha, self.beta)))

    def above(self, rates: Floats) -> Floats:
        """Share of questions that one sample solves with a chance above each rate."""
        return np.asarray(betaincc(self.alpha, self.beta, rates))

    def rates(self, questions: int) -> Floats:
        """A set of so many questions without chance: the middles of equal parts, as quantiles."""
        return np.asarray(betaincinv(self.alpha, self.beta, (np.arange(questions) + 0.5) / questions))


@dataclass(frozen=True, slots=True, kw_only=True)
class PassCounts:
    """Measured: int64[questions] samples tried and samples that solved it."""

    tries: NDArray[np.int64]
    solved: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.tries.shape != self.solved.shape or self.tries.ndim != 1 or not len(self.tries):
            raise InputError(self.tries.shape, "tries and solved are columns of one length, a row a question")
        if not ((self.solved >= 0) & (self.solved <= self.tries) & (self.tries > 0)).all():
            raise InputError("pass counts", "0 <= solved <= tries, and at least one try")

    def coverage(self, samples: int) -> float:
        """pass@k without bias, the mean over questions of 1 − C(n − c, k) / C(n, k) (Chen et al. 2021, 2107.03374).

        InputError: more samples than a question was tried.
        """
        if not 0 <= samples <= int(self.tries.min()):
            raise InputError(samples, "pass@k without bias needs k tries of every question", f"k <= {self.tries.min()}")
        return float(pass_at_k(self.tries, self.solved, samples).mean())


def pass_at_k(tries: NDArray[np.int64], solved: NDArray[np.int64], samples: int) -> Floats:
    """Chance that k of the n tries, drawn without repetition, hold one of the c right ones: float64 like the counts."""
    wrong = tries - solved
    few = wrong >= samples
    missed = np.where(few, wrong, samples)
    logs = gammaln(missed + 1) - gammaln(missed - samples + 1) - gammaln(tries + 1) + gammaln(tries - samples + 1)
    return np.where(few, -np.expm1(logs), 1.0)


def fit_beta(counts: PassCounts) -> BetaRates:
    """Moments of the counts: mean and spread of solve rates, the spread of finite tries taken off.

    InputError: fewer than two tries of a question, or rates that do not differ more than chance makes them.
    """
    n, c = counts.tries.astype(float), counts.solved.astype(float)
    if (n < 2).any():
        raise InputError(int(n.min()), "a spread needs two tries of every question")
    mean, pair = float((c / n).mean()), float((c * (c - 1) / (n * (n - 1))).mean())
    if not mean * mean < pair < mean:
        raise InputError(mean, "solve rates that differ no more than chance fit no Beta", "more questions or tries")
    both = (mean - pair) / (pair - mean * mean)  # E[p²] = mean (α + 1) / (α + β + 1)
    return BetaRates(alpha=mean * both, beta=(1.0 - mean) * both)


def read_pass_counts(path: str) -> PassCounts:
    """A CSV with the columns question, tries, solved. InputError: other columns, no whole numbers, too many rows."""
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != _COLUMNS:
                raise InputError(path, f"has other columns than {', '.join(_COLUMNS)}")
            rows = []
            for row in reader:
                rows.append((int(row["tries"]), int(row["solved"])))
                if len(rows) > _MOST_ROWS:
                    raise InputError(path, f"has more than {_MOST_ROWS} questions")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, "is not a readable file") from error
    except (ValueError, TypeError, csv.Error) as error:
        raise InputError(path, "tries and solved are whole numbers") from error
    columns = np.array(rows, np.int64).reshape(-1, 2)
    return PassCounts(tries=columns[:, 0], solved=columns[:, 1])
