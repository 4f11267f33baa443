"""Figures of the choice: the Pareto chart, and each plan's bound beside its outcome."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from plotly import graph_objects as go

from simtool.planners.objective import maximised
from simtool.planners.question import Answer, Candidate
from simtool.report.style import ACCENT, FAINT, SLATE, WARM, axis, layout
from simtool.report.wording import OBJECTIVES, number, plan_details

_MAX_PRUNED = 2000  # drawn; the page says how many there are


def pareto_figure(answer: Answer) -> go.Figure:
    """Output tok/s a user against output tok/s a GPU: every simulated plan, the front, and the pruned plans' bounds."""
    figure = go.Figure(layout=layout(430))
    done = [c for c in answer.candidates if c.metrics is not None and c.status != "pruned"]
    slo = answer.question.slo
    met = "meets the SLO" if max(slo.ttft_s, slo.tpot_s, slo.e2e_s) > 0 else "simulated"
    groups = (
        (
            met,
            [c for c in done if c.meets_slo is not False and c.status != "best"],
            SLATE,
            "circle",
        ),
        ("misses the SLO", [c for c in done if c.meets_slo is False], WARM, "circle-open"),
        ("best", [answer.best], ACCENT, "star"),
    )
    front = _front([c for c in done if c.meets_slo is not False])
    figure.add_scatter(
        x=[_per_user(c) for c in front], y=[_per_gpu(c) for c in front], mode="lines", name="Pareto front",
        line={"color": ACCENT, "width": 1.5, "shape": "vh"}, hoverinfo="skip",
    )  # fmt: skip
    for name, members, colour, symbol in groups:
        figure.add_scatter(
            x=[_per_user(c) for c in members], y=[_per_gpu(c) for c in members], mode="markers", name=name,
            text=[_hover(c, answer) for c in members], hovertemplate="%{text}<extra></extra>",
            marker={"color": colour, "symbol": symbol, "size": 17 if name == "best" else 9, "opacity": 0.9},
        )  # fmt: skip
    _add_pruned(figure, answer)
    figure.update_xaxes(axis("output tokens/s per user (1000 / mean TPOT ms)", rangemode="tozero"))
    figure.update_yaxes(axis("output tokens/s per GPU (all of the plan's)", rangemode="tozero"))
    return figure


def proof_figure(answer: Answer) -> go.Figure:
    """Each legal plan, best bound first: what it could reach at most, and what simulation said."""
    name, unit = OBJECTIVES[answer.question.objective]
    greater = maximised(answer.question.objective)
    ordered = sorted(answer.candidates, key=lambda c: -c.bound if greater else c.bound)[:_MAX_PRUNED]
    rank = {id(c): place for place, c in enumerate(ordered, 1)}
    figure = go.Figure(layout=layout(430))
    figure.add_scatter(
        x=list(rank.values()), y=[c.bound for c in ordered], mode="markers", name="optimistic bound",
        marker={"color": FAINT, "symbol": "line-ew-open", "size": 8, "line": {"width": 1.6}},
        text=[_hover(c, answer) for c in ordered], hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip
    done = [c for c in ordered if c.objective is not None]
    figure.add_scatter(
        x=[rank[id(c)] for c in done], y=[c.objective for c in done], mode="markers", name="simulated",
        marker={
            "color": [ACCENT if c.status == "best" else WARM if c.meets_slo is False else SLATE for c in done],
            "size": [14 if c.status == "best" else 8 for c in done],
        },
        text=[_hover(c, answer) for c in done], hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip
    if answer.best.objective is not None:
        figure.add_hline(y=answer.best.objective, line={"color": ACCENT, "width": 1, "dash": "dot"})
    spread = [abs(c.bound) for c in ordered if np.isfinite(c.bound) and c.bound != 0]
    scale = "log" if spread and max(spread) > 50 * min(spread) else "linear"
    figure.update_xaxes(axis("legal plans, best bound first"))
    figure.update_yaxes(axis(f"{name}, {unit}", type=scale))
    return figure


def _add_pruned(figure: go.Figure, answer: Answer) -> None:
    """Pruned plans as ticks at the left edge, at their bound, where the bound is this chart's y."""
    pruned = [c for c in answer.candidates if c.status == "pruned" and np.isfinite(c.bound)][:_MAX_PRUNED]
    if not pruned or answer.question.objective != "throughput-per-gpu":
        return
    figure.add_scatter(
        x=[0.0] * len(pruned), y=[c.bound for c in pruned], mode="markers", name="pruned, at its bound",
        marker={"color": FAINT, "symbol": "line-ew-open", "size": 14, "line": {"width": 1.4}},
        text=[_hover(c, answer) for c in pruned], hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


def _per_user(candidate: Candidate) -> float:
    tpot_ms = (candidate.metrics or {}).get("mean_tpot_ms", np.nan)
    return 1e3 / tpot_ms if tpot_ms > 0 else np.nan


def _per_gpu(candidate: Candidate) -> float:
    return (candidate.metrics or {}).get("output_throughput", np.nan) / candidate.plan.devices


def _front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that no other beats on both axes, in order of tokens a user."""
    points = [c for c in candidates if np.isfinite(_per_user(c)) and np.isfinite(_per_gpu(c))]
    best_so_far, front = -np.inf, []
    for candidate in sorted(points, key=lambda c: (-_per_user(c), -_per_gpu(c))):
        if _per_gpu(candidate) > best_so_far:
            best_so_far = _per_gpu(candidate)
            front.append(candidate)
    return front[::-1]


def _hover(candidate: Candidate, answer: Answer) -> str:
    """What the mouse shows over a plan."""
    unit = OBJECTIVES[answer.question.objective][1]
    greater = maximised(answer.question.objective)
    lines = [plan_details(candidate.plan)]
    if candidate.objective is not None:
        lines.append(f"simulated: {number(candidate.objective, 4)} {unit}")
    lines.append(f"bound: {'≤' if greater else '≥'} {number(candidate.bound, 4)} {unit}")
    metrics = candidate.metrics or {}
    if metrics:
        names = (("TTFT", "mean_ttft_ms"), ("TPOT", "mean_tpot_ms"))
        lines.append(", ".join(f"mean {name} {number(metrics[key])} ms" for name, key in names if key in metrics))
    if candidate.meets_slo is not None:
        lines.append("meets the SLO" if candidate.meets_slo else "misses the SLO")
    if candidate.reason:
        lines.append(candidate.reason)
    return "<br>".join(lines)
