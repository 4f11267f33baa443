"""rebalance.html: loads over time, and when a new placement pays. One page, as the others."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

import numpy as np

from simtool.files import output_file
from simtool.planners.experts.rebalance_study import RebalanceStudy
from simtool.report.calibration_tables import scrolled
from simtool.report.card import Card, cards_row
from simtool.report.html_tables import table
from simtool.report.rebalance_figures import drift_figure, most_drifting, over_mean_figure
from simtool.report.rebalance_rows import (
    CAVEAT,
    SCHEDULE_HEADS,
    WINDOW_HEADS,
    by_clock,
    schedule_rows,
    sentence,
    verdict,
    window_rows,
)
from simtool.report.shell import package_version, page_html, panel, plot, section


def write_rebalance_page(study: RebalanceStudy, numbers: Sequence[int], layers: Sequence[int], path: Path) -> None:
    """Write `rebalance_page` to `path`, whole or not at all."""
    with output_file(path) as building:
        building.write_text(rebalance_page(study, numbers, layers), encoding="utf-8")


def rebalance_page(study: RebalanceStudy, numbers: Sequence[int], layers: Sequence[int]) -> str:
    """The page as HTML text. numbers, layers: of the windows, and of the layers in the model."""
    figures: dict[str, str] = {}
    problem = study.problem
    head = (
        '<header><div class="eyebrow">simtool · rebalancing experts</div>'
        f"<h1>{problem.experts} experts on {problem.gpus} GPUs over {len(numbers)} windows</h1>"
        f'<p class="lead">{escape(sentence(verdict(study)))} {escape(sentence(CAVEAT))}</p></header>'
    )
    layer = most_drifting(np.stack([window.loads for window in study.windows]))
    body = (
        head
        + cards_row(_cards(study))
        + section(
            "Load over time",
            "The fullest GPU's load over the mean GPU's, all layers; the share above 1 is waiting. A mark is a move.",
            panel(plot(over_mean_figure(study, numbers), "over-mean", figures)),
        )
        + _tables(study, numbers)
        + section(
            "Drift",
            f"Load of each expert over the mean expert's in layer {layers[layer]}, whose loads change most.",
            panel(plot(drift_figure(study, layer, numbers), "drift", figures)),
        )
    )
    style = files("simtool.report").joinpath("calibration.css").read_text("utf-8")
    return page_html("Rebalancing experts · simtool", body, figures, package_version(), style)


def _cards(study: RebalanceStudy) -> list[Card]:
    stay, best, clock = study.stay, study.best, by_clock(study)
    cards = [
        Card(
            name="less time with the moves that pay",
            value=100 * (1 - best.seconds / stay.seconds),
            unit="%",
            more=f"{best.moves} moves in {len(study.windows)} windows",
        ),
        Card(name="of that time, moving", value=100 * best.moving_s / best.seconds, unit="%"),
    ]
    if clock is not None:
        won = 100 * (1 - clock.seconds / stay.seconds)
        cards.append(Card(name="less time by the clock", value=won, unit="%", more=clock.name))
    return cards


def _tables(study: RebalanceStudy, numbers: Sequence[int]) -> str:
    rows, ways = window_rows(study, numbers), schedule_rows(study)
    windows = table(WINDOW_HEADS, rows, [""] * len(rows), texts=(0, 7))
    schedules = table(SCHEDULE_HEADS, ways, ["", *[""] * (len(ways) - 2), "best"])
    return section(
        "Ways to move",
        "Loads that are known ahead are not an engine's: the last row bounds every rule.",
        panel(scrolled(schedules)),
    ) + section(
        "Windows",
        "Highest GPU load over the mean: with the first placement, with the window's own, with the cheapest way's. "
        "Moving to the window's own takes so long, and has paid after so many steps like these.",
        panel(scrolled(windows)),
    )
