"""D7: coverage of repeated samples as an exponentiated power law, through the row's published points.

    python benchmarks/reproductions/d7_monkeys.py

The row has two points a benchmark and the law two parameters: it passes through them, which shows nothing. What follows
from it is printed (coverage between the points, samples for 90%), and beside it what a Beta of per-question solve rates
through the same two points says: a second law, without the first one's form.
"""

from __future__ import annotations

from scipy.optimize import least_squares

from simtool.models.accuracy.power_law import CoverageLaw, fit_coverage
from simtool.models.accuracy.solve_rates import BetaRates

PUBLISHED = {  # targets.md D7
    "Llama-3-8B, MATH": ((100, 0.829), (10_000, 0.9844)),
    "SWE-bench Lite": ((1, 0.159), (250, 0.56)),
}
BETWEEN = (1, 10, 100, 1000, 10_000)


def beta_through(points: tuple[tuple[int, float], ...]) -> BetaRates:
    """The Beta whose coverage meets the points."""

    def missing(logs: list[float]) -> list[float]:
        rates = BetaRates(alpha=2.0 ** logs[0], beta=2.0 ** logs[1])
        return [rates.coverage(k) - share for k, share in points]

    found = least_squares(missing, [-1.0, 1.0], bounds=(-12.0, 12.0), xtol=1e-12).x
    return BetaRates(alpha=float(2.0 ** found[0]), beta=float(2.0 ** found[1]))


def main() -> None:
    for name, points in PUBLISHED.items():
        law: CoverageLaw = fit_coverage(*zip(*points, strict=True))
        rates = beta_through(points)
        print(f"{name}: a = {law.a:.4f}, b = {law.b:.4f}; Beta({rates.alpha:.3f}, {rates.beta:.3f})")
        for k, share in points:
            print(f"   {k:6} published {share:.4f}, law {law.coverage(k):.4f}, Beta {rates.coverage(k):.4f} (fitted)")
        said = ", ".join(f"{k}: {law.coverage(k):.3f} / {rates.coverage(k):.3f}" for k in BETWEEN)
        print(f"   law / Beta at {said}; law reaches 90% at {law.samples_for(0.9):.0f} samples")


if __name__ == "__main__":
    main()
