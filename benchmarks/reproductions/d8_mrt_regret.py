"""D8: cumulative regret of one long chain against restarts that stop when done, by MRT's formula.

    python benchmarks/reproductions/d8_mrt_regret.py

The row gives a formula and no numbers. Declared here: a chain whose chance to be right grows by episodes as a
saturation law, one that stalls after its third episode, and the best policy that has all of it in the first. What is
checked: the closed form of the sum, and that regret stops growing only where the answer gets as good as the best.
"""

from __future__ import annotations

from simtool.models.accuracy.regret import cumulative_regret
from simtool.models.accuracy.saturation import Saturation

EPISODES = 10
LAW = Saturation(ceiling=0.8, rate=0.3)  # declared


def chains() -> dict[str, list[float]]:
    """Chance of a right answer after each episode."""
    growing = [LAW.success(j) for j in range(1, EPISODES + 1)]
    return {
        "progress": growing,
        "stalled": growing[:3] + [growing[2]] * (EPISODES - 3),
        "best": [LAW.ceiling] * EPISODES,
    }


def closed_form(episodes: int) -> float:
    """Σ_j ceiling (1 − rate)^j, a geometric sum."""
    left = 1 - LAW.rate
    return LAW.ceiling * left * (1 - left**episodes) / LAW.rate


def main() -> None:
    for name, reached in chains().items():
        regret = cumulative_regret(LAW.ceiling, reached)
        print(f"{name:9} " + " ".join(f"{value:6.3f}" for value in regret))
    print(f"closed form of progress after {EPISODES} episodes: {closed_form(EPISODES):.3f}")


if __name__ == "__main__":
    main()
