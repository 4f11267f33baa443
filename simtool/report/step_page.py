"""step.html: how a task graph ran. One page, complete in itself, like the others."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from pathlib import Path

import numpy as np

from simtool.files import output_file
from simtool.report.calibration_tables import scrolled
from simtool.report.html_tables import table
from simtool.report.shell import package_version, page_html, panel, plot, section
from simtool.report.step_figure import MOST_LANES, MOST_RESOURCES, step_figure
from simtool.report.wording import duration
from simtool.simulator.tasks.bounds import GraphBounds, graph_bounds
from simtool.simulator.tasks.lanes import lanes_of
from simtool.simulator.tasks.timeline import Timeline, covered_s, union_spans

_MOST_ROWS = 12


def write_step_page(timeline: Timeline, path: Path, title: str = "Step") -> None:
    """Write `step_page` to `path`, whole or not at all."""
    with output_file(path) as building:
        building.write_text(step_page(timeline, title), encoding="utf-8")


def step_page(timeline: Timeline, title: str = "Step") -> str:
    """The page as HTML text. Use of resources is drawn where it was recorded (`simulate_tasks(record=True)`)."""
    figures: dict[str, str] = {}
    bounds = graph_bounds(timeline.graph)
    count = len(timeline.graph.tasks)
    head = (
        f'<header><div class="eyebrow">simtool · step report</div>'
        f"<h1>{escape(title)}: {duration(timeline.makespan_s)}</h1>"
        f'<p class="lead">{count:,} tasks. {escape(_sentence(timeline, bounds))}</p></header>'
    )
    drawn = panel(plot(step_figure(timeline), "step", figures)) if count else ""
    body = head + section("The step over time", _say(timeline), drawn) + _bounds(timeline, bounds) + _families(timeline)
    style = files("simtool.report").joinpath("calibration.css").read_text("utf-8")
    return page_html(f"{title} · simtool", body + _path(timeline), figures, package_version(), style)


def gain(simulated_s: float, bounds: GraphBounds) -> float:
    """Share of the possible gain over one task after another that was reached; NaN where none is possible."""
    possible = bounds.serial_s - bounds.lower_s
    return (bounds.serial_s - simulated_s) / possible if possible > 1e-12 * bounds.serial_s else float("nan")


def _sentence(timeline: Timeline, bounds: GraphBounds) -> str:
    reached = gain(timeline.makespan_s, bounds)
    if np.isnan(reached):
        return "Nothing can overlap."
    return (
        f"No schedule takes less than {duration(bounds.lower_s)}; one task after another takes "
        f"{duration(bounds.serial_s)}. {100 * reached:.3g}% of the gain between the two is reached."
    )


def _say(timeline: Timeline) -> str:
    names, _ = lanes_of(timeline)
    more = f" {len(names) - MOST_LANES} more streams are not drawn." if len(names) > MOST_LANES else ""
    used = len(timeline.graph.resources)
    busiest = f" Underneath, the {MOST_RESOURCES} busiest of {used} resources." if used > MOST_RESOURCES else ""
    return f"One row a stream; the red line marks the critical path. Drag to zoom in.{more}{busiest}"


def _bounds(timeline: Timeline, bounds: GraphBounds) -> str:
    reached = gain(timeline.makespan_s, bounds)
    rows = [
        ("T_lower: the longest chain, each task alone", duration(bounds.path_s)),
        ("T_lower: the busiest resource's work at its rate", duration(bounds.busiest_s)),
        ("Simulated", duration(timeline.makespan_s)),
        ("T_upper: one task after another", duration(bounds.serial_s)),
        ("Gain reached, of what T_lower would allow", "–" if np.isnan(reached) else f"{100 * reached:.3g}%"),
    ]
    say = "Waves, interference, holds and stores may take a step above T_upper; without them it lies between the two."
    listed = table(("", ""), rows, ["", "", "best", "", ""])
    return section("Bounds", say, panel(scrolled(listed)))


def _families(timeline: Timeline) -> str:
    each = [task.family for task in timeline.graph.tasks]
    rows = []
    for name in dict.fromkeys(each):
        mine = np.array([family == name for family in each])
        busy = covered_s(union_spans(timeline.start_s[mine], timeline.end_s[mine]))
        exposed = max(timeline.exposed_s(name), 0.0)
        rows.append((name or "other", f"{mine.sum():,}", duration(busy), duration(exposed)))
    say = "Exposed: seconds in which tasks of this family run and no other does."
    return section("Families", say, panel(scrolled(table(("", "tasks", "running", "exposed"), rows, [""] * len(rows)))))


def _path(timeline: Timeline) -> str:
    path = timeline.critical_path()
    long = sorted(path, key=lambda task: float(timeline.start_s[task] - timeline.end_s[task]))[:_MOST_ROWS]
    rows = [
        (
            timeline.graph.tasks[task].name,
            timeline.graph.tasks[task].stream or "–",
            duration(float(timeline.start_s[task])),
            duration(float(timeline.end_s[task] - timeline.start_s[task])),
        )
        for task in sorted(long)
    ]
    shown = f"The {len(rows)} longest of its {len(path):,} tasks." if len(rows) < len(path) else ""
    heads = ("task", "stream", "start", "takes")
    return section("Critical path", shown, panel(scrolled(table(heads, rows, [""] * len(rows), texts=(0, 1)))))
