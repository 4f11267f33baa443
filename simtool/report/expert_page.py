"""experts.html: which experts are hot, and the load of every GPU before and after planning. One page, as the others."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from simtool.files import output_file
from simtool.planners.experts.plan import ExpertPlan
from simtool.report.calibration_tables import scrolled
from simtool.report.card import Card, cards_row
from simtool.report.expert_figures import expert_figure, gpu_figure
from simtool.report.html_tables import table
from simtool.report.shell import package_version, page_html, panel, plot, section
from simtool.report.wording import number


def write_expert_page(plan: ExpertPlan, layers: Sequence[int], path: Path) -> None:
    """Write `expert_page` to `path`, whole or not at all. layers: their numbers in the model."""
    with output_file(path) as building:
        building.write_text(expert_page(plan, layers), encoding="utf-8")


def expert_page(plan: ExpertPlan, layers: Sequence[int]) -> str:
    """The page as HTML text."""
    figures: dict[str, str] = {}
    problem = plan.problem
    name = "now" if problem.present is not None else "EPLB's greedy"
    before = problem.present if problem.present is not None else plan.greedy_phy2log
    gpus = gpu_figure(plan.loads(before), plan.loads(plan.phy2log), layers, name)
    head = (
        '<header><div class="eyebrow">simtool · expert placement</div>'
        f"<h1>{problem.experts} experts on {problem.gpus} GPUs</h1>"
        f'<p class="lead">{problem.replicas} slots in each of {problem.layers} layers. A layer waits for its fullest '
        "GPU, so that what counts is the highest load of each layer.</p></header>"
    )
    body = (
        head
        + cards_row(_cards(plan))
        + section(
            "GPUs",
            f"Load over the mean GPU's: {name} (left) and as planned (right). White is the mean, orange above it.",
            panel(plot(gpus, "gpus", figures)),
        )
        + section(
            "Experts",
            "Load over the mean expert's, before it is split over replicas.",
            panel(plot(expert_figure(problem.loads, layers), "experts", figures)),
        )
        + _table(plan, layers)
    )
    style = files("simtool.report").joinpath("calibration.css").read_text("utf-8")
    return page_html("Expert placement · simtool", body, figures, package_version(), style)


def _cards(plan: ExpertPlan) -> list[Card]:
    planned = sum(one.load.objective for one in plan.layers)
    greedy = sum(one.greedy_measures.highest_load for one in plan.layers)
    mean = float(plan.problem.loads.sum() / plan.problem.gpus)
    cards = [
        Card(name="mean over highest GPU load", value=100 * mean / planned, unit="%", more="all layers, as planned"),
        Card(name="with EPLB's greedy", value=100 * mean / greedy, unit="%"),
        Card(name="still possible, at most", value=100 * plan.gap, unit="%", more="gap to the bound"),
    ]
    if plan.problem.present is not None:
        moved = sum(one.moved.objective for one in plan.layers)
        cards.append(Card(name="to be moved", value=moved / 1e9, unit="GB"))
    return cards


def _table(plan: ExpertPlan, layers: Sequence[int]) -> str:
    heads = ("layer", "mean GPU", "greedy", "planned", "bound", "gap", "proof")
    means = (plan.problem.loads.sum(axis=1) / plan.problem.gpus).tolist()
    rows = [
        (
            str(layer),
            number(mean, 4),
            number(one.greedy_measures.highest_load, 4),
            number(one.load.objective, 4),
            number(one.load.bound, 4),
            f"{100 * one.load.gap:.2f}%",
            "best there is" if one.load.closed else "",
        )
        for layer, mean, one in zip(layers, means, plan.layers, strict=True)
    ]
    say = "Highest GPU load. No placement is below the bound, whatever the number of replicas."
    return section("Layers", say, panel(scrolled(table(heads, rows, [""] * len(rows), texts=(0, 6)))))
