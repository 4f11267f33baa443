"""A rebalancing study as rows of text, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Sequence

from simtool.planners.experts.rebalance_study import RebalanceStudy, Schedule
from simtool.report.wording import duration, number

WINDOW_HEADS = ("window", "steps", "stay", "own", "cheapest", "move takes", "pays after", "so")
SCHEDULE_HEADS = ("placement moves", "moves", "moving", "experts and moves", "against stay")


CAVEAT = "loads are over the mean GPU's, an expert's split equally over its replicas; no step runs beside a move"


def window_rows(study: RebalanceStudy, numbers: Sequence[int]) -> list[list[str]]:
    """A row a window under WINDOW_HEADS: highest GPU load over the mean, and what moving to its own placement does."""
    rows = []
    for window, name in enumerate(numbers):
        chosen = study.best.chosen[window]
        seconds, steps = study.move_before(window)
        over = (study.over_mean(window, held) for held in (0, study.own[window], chosen))
        moved = chosen != (0, *study.best.chosen)[window]
        pays = "no need" if seconds == 0 else "never" if steps == float("inf") else f"{number(steps)} steps"
        rows.append(
            [
                str(name),
                f"{study.windows[window].steps:,.0f}",
                *(f"{value:.3f}" for value in over),
                duration(seconds),
                pays,
                "move" if moved else "",
            ]
        )
    return rows


def schedule_rows(study: RebalanceStudy) -> list[list[str]]:
    """A row a schedule under SCHEDULE_HEADS."""
    return [
        [
            one.name,
            str(one.moves),
            duration(one.moving_s),
            duration(one.seconds),
            f"{100 * (one.seconds / study.stay.seconds - 1):+.2f}%",
        ]
        for one in study.schedules
    ]


def by_clock(study: RebalanceStudy) -> Schedule | None:
    """The cheapest of those that an engine can have: moving every so many windows, from the loads before; if any."""
    clocks = [one for one in study.schedules if one.every]
    return min(clocks, key=lambda one: one.seconds) if clocks else None


def verdict(study: RebalanceStudy) -> str:
    """When a new placement pays, in words."""
    best, clock = study.best, by_clock(study)
    gain = 100 * (1 - best.seconds / study.stay.seconds)
    if not best.moves:
        said = "no move pays in these windows"
    else:
        moves = "1 move pays" if best.moves == 1 else f"{best.moves} moves pay"
        said = f"{moves}: {gain:.2f}% less time of experts, moves included, than without any"
    if clock is not None and clock.seconds < study.stay.seconds:
        won = 100 * (1 - clock.seconds / study.stay.seconds)
        said += f"; from the loads before, the best interval ({clock.name.split(',')[0]}) wins {won:.2f}%"
    elif clock is not None:
        said += "; from the loads before, no interval wins anything"
    return said


def sentence(words: str) -> str:
    """With a capital and a full stop."""
    return f"{words[:1].upper()}{words[1:]}."
