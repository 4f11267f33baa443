"""Figures of a validation: intervals of metrics, steps, requests, and where the error comes from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from simtool.metrics import Result, request_latencies
from simtool.report.calibration_figures import CORNER, LOG_TIME, ROOM_ABOVE
from simtool.report.calibration_wording import family_colour
from simtool.report.style import ACCENT, FAINT, SLATE, WARM, axis, layout
from simtool.report.validation_rows import metric_unit, metric_value, metric_words, signed, term_words
from simtool.report.wording import duration
from simtool.validation import Attribution, MetricRow, PlanOrder, Steps, Term

Array = NDArray[np.float64]
BAND = 0.10  # relative width of the band around the diagonal
MOST_POINTS = 6000  # of a figure: thinned evenly above
KINDS = (("prefill only", WARM), ("prefill and decode", SLATE), ("decode only", ACCENT))
TERM_COLOURS = {"host": "#d0605e", "rest": FAINT, "between": "#b76fb0", "schedule": "#c9a227"}
_BAND_COLOUR = "rgba(20,160,148,0.13)"


def kinds_of(prefill_tokens: NDArray[np.int64] | Array, decode_requests: NDArray[np.int64] | Array) -> Array:
    """For each step its place in KINDS."""
    return np.where(prefill_tokens > 0, np.where(decode_requests > 0, 1, 0), 2).astype(np.float64)


def thinned(rows: NDArray[np.intp], most: int = MOST_POINTS) -> NDArray[np.intp]:
    """At most `most` of the rows, evenly spread."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).astype(np.intp)]


def intervals_figure(rows: Sequence[MetricRow]) -> go.Figure:
    """Each metric's prediction and 90% interval relative to what was measured (0), and the noise where it is known."""
    rows = list(rows)[::-1]
    names = [metric_words(row.key) for row in rows]
    figure = go.Figure(layout=layout(max(220, 30 * len(rows) + 110)))
    noisy = [(name, row.noise) for name, row in zip(names, rows, strict=True) if np.isfinite(row.noise)]
    for number, (name, noise) in enumerate(noisy):
        figure.add_scatter(
            x=[-100 * noise, 100 * noise], y=[name, name], mode="lines", name="noise: two measurements",
            showlegend=number == 0, line={"color": WARM, "width": 12}, opacity=0.35, hoverinfo="skip",
        )  # fmt: skip
    for number, (name, row) in enumerate(zip(names, rows, strict=True)):
        ends = [100 * (end / row.measured - 1) if row.measured else 0.0 for end in (row.lower, row.upper)]
        figure.add_scatter(
            x=ends, y=[name, name], mode="lines", name="90% interval", showlegend=number == 0,
            line={"color": ACCENT, "width": 3}, opacity=0.45, hoverinfo="skip",
        )  # fmt: skip
    figure.add_scatter(
        x=[100 * row.error for row in rows], y=names, mode="markers", name="predicted",
        marker={"size": 11, "color": [ACCENT if row.inside else WARM for row in rows]},
        text=[f"predicted {metric_value(row.key, row.predicted)}, measured {metric_value(row.key, row.measured)} "
              f"({signed(row.error)})" for row in rows],
        hovertemplate="<b>%{y}</b><br>%{text}<extra></extra>",
    )  # fmt: skip
    figure.add_vline(x=0, line={"color": FAINT, "width": 1.4})
    figure.update_xaxes(axis("predicted / measured − 1 (0: as measured)", ticksuffix="%", nticks=9))
    figure.update_yaxes(axis("", categoryorder="array", categoryarray=names, showgrid=False))
    return figure


def steps_figure(steps: Steps) -> go.Figure:
    """Priced over measured time of each step, by what it holds, with the diagonal and a band of 10%."""
    every = np.concatenate([steps.measured_s, steps.priced_s])
    ends = np.array([every.min() / 1.2, every.max() * 1.2])
    figure = go.Figure(layout=layout(430, legend=CORNER, margin=ROOM_ABOVE))
    _diagonal(figure, ends)
    kinds = kinds_of(steps.prefill_tokens, steps.decode_requests)
    for place, (name, colour) in enumerate(KINDS):
        rows = thinned(np.flatnonzero(kinds == place))
        if len(rows):
            figure.add_scatter(
                x=steps.measured_s[rows], y=steps.priced_s[rows], mode="markers", name=name,
                marker={"color": colour, "size": 5, "opacity": 0.55}, text=_step_words(steps, rows),
                hovertemplate="%{text}<extra></extra>",
            )  # fmt: skip
    span = [float(np.log10(end)) for end in ends]
    figure.update_xaxes(axis("measured time of the step", type="log", range=span, **_ticks(ends)))
    figure.update_yaxes(axis("predicted time of the same batch", type="log", range=span, **_ticks(ends)))
    return figure


def _ticks(ends: Array) -> dict[str, object]:
    """Ticks in words; 1, 2 and 5 of a decade where fewer than two whole decades are shown."""
    if ends[1] / ends[0] > 100:
        return dict(LOG_TIME)
    low, high = (int(np.floor(np.log10(end))) for end in ends)
    values = [digit * 10.0**power for power in range(low, high + 1) for digit in (1, 2, 3, 5, 7)]
    shown = [value for value in values if ends[0] <= value <= ends[1]]
    return {"tickvals": shown, "ticktext": [duration(value) for value in shown]}


def _diagonal(figure: go.Figure, ends: Array, row: int | None = None, col: int | None = None) -> None:
    figure.add_scatter(
        x=[*ends, *ends[::-1]], y=[*(ends * (1 + BAND)), *(ends[::-1] * (1 - BAND))], fill="toself", mode="none",
        fillcolor=_BAND_COLOUR, hoverinfo="skip", showlegend=False, row=row, col=col,
    )  # fmt: skip
    figure.add_scatter(
        x=ends, y=ends, mode="lines", line={"color": FAINT, "width": 1}, hoverinfo="skip", showlegend=False, row=row,
        col=col,
    )  # fmt: skip


def _step_words(steps: Steps, rows: NDArray[np.intp]) -> list[str]:
    return [
        f"<b>step {row}</b>: {steps.decode_requests[row]:,} decodes, {steps.prefill_tokens[row]:,} prompt tokens<br>"
        f"measured {duration(steps.measured_s[row])}, predicted {duration(steps.priced_s[row])} "
        f"({signed(float(steps.error[row]))})"
        for row in rows.tolist()
    ]


def groups_figure(steps: Steps, labels: Sequence[str], members: Sequence[NDArray[np.bool_]]) -> go.Figure:
    """Signed errors of each group of steps: box from quartile to quartile, whiskers at p5 and p95."""
    figure = go.Figure(layout=layout(430, showlegend=False, margin=ROOM_ABOVE))
    for label, rows in reversed(list(zip(labels, members, strict=True))):
        ends = 100 * np.quantile(steps.error[rows], (0.05, 0.25, 0.5, 0.75, 0.95))
        colour = dict(KINDS).get(label, ACCENT)
        figure.add_box(
            y=[label], lowerfence=[ends[0]], q1=[ends[1]], median=[ends[2]], q3=[ends[3]], upperfence=[ends[4]],
            orientation="h", name=label, hoverinfo="x", line={"color": colour, "width": 1.5},
        )  # fmt: skip
    figure.add_vline(x=0, line={"color": FAINT, "width": 1})
    figure.add_vrect(x0=-100 * BAND, x1=100 * BAND, fillcolor=_BAND_COLOUR, line_width=0, layer="below")
    figure.update_xaxes(axis("predicted / measured − 1", ticksuffix="%", nticks=9))
    figure.update_yaxes(axis("", showgrid=False))
    return figure


def requests_figure(predicted: Result, measured: Result) -> go.Figure:
    """TTFT and end-to-end latency of each request, predicted over measured."""
    ours, theirs = request_latencies(predicted), request_latencies(measured)
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.12)
    panels = (("TTFT", ours.ttft_s, theirs.ttft_s), ("end to end", ours.e2e_s, theirs.e2e_s))
    for col, (name, predicted_s, measured_s) in enumerate(panels, 1):
        rows = thinned(np.flatnonzero(np.isfinite(predicted_s) & np.isfinite(measured_s)))
        most = float(max(predicted_s[rows].max(initial=0.0), measured_s[rows].max(initial=0.0))) * 1.05 or 1.0
        factor, unit = (1e3, "ms") if most < 1 else (1.0, "s")
        _diagonal(figure, np.array([0.0, most * factor]), row=1, col=col)
        figure.add_scatter(
            x=measured_s[rows] * factor, y=predicted_s[rows] * factor, mode="markers", row=1, col=col,
            showlegend=False, marker={"color": ACCENT, "size": 5, "opacity": 0.55}, text=rows,
            hovertemplate="<b>request %{text}</b><br>measured %{x:.4g}, predicted %{y:.4g} " + unit + "<extra></extra>",
        )  # fmt: skip
        figure.update_xaxes(axis(f"measured {name}, {unit}", rangemode="tozero"), row=1, col=col)
        figure.update_yaxes(axis(f"predicted {name}, {unit}", rangemode="tozero"), row=1, col=col)
    figure.update_layout(layout(400, margin=ROOM_ABOVE))
    return figure


def waterfall_figure(found: Attribution) -> go.Figure:
    """From the predicted mean end-to-end latency to the measured one, term by term."""
    terms = sorted(found.terms, key=lambda term: -abs(term.e2e_s))
    least = 1e-3 * abs(found.measured_e2e_s)
    shown = [term for term in terms if abs(term.e2e_s) >= least]
    factor, unit = (1e3, "ms") if found.measured_e2e_s < 1 else (1.0, "s")
    left = sum(term.e2e_s for term in terms if abs(term.e2e_s) < least)
    left = left if abs(left) > 1e-6 * abs(found.measured_e2e_s) else 0.0
    names = ["predicted", *map(term_words, shown), *(["all others"] if left else [])]
    steps = [*(term.e2e_s for term in shown), *([left] if left else [])]
    colours = [SLATE, *map(_term_colour, shown), *([FAINT] if left else [])]
    figure = go.Figure(layout=layout(400, showlegend=False, bargap=0.35))
    at = found.predicted_e2e_s
    bases, heights = [0.0], [at]
    for step in steps:
        bases.append(at)
        heights.append(step)
        at += step
    names, bases, heights = [*names, "measured"], [*bases, 0.0], [*heights, found.measured_e2e_s]
    figure.add_bar(
        x=names, y=[factor * h for h in heights], base=[factor * b for b in bases],
        marker={"color": [*colours, ACCENT]}, textposition="outside", cliponaxis=False,
        text=[duration(h) if n in ("predicted", "measured") else f"{'+' if h > 0 else '−'}{duration(abs(h))}"
              for n, h in zip(names, heights, strict=True)],
        hovertemplate="<b>%{x}</b><br>%{text}<extra></extra>",
    )  # fmt: skip
    low = min(min(b, b + h) for b, h in zip(bases[1:-1], heights[1:-1], strict=True)) if steps else 0.0
    span = max(b + max(h, 0.0) for b, h in zip(bases, heights, strict=True)) - low
    floor = max(0.0, low - 0.35 * span) if low > 2 * span else 0.0
    figure.update_xaxes(axis("", showgrid=False))
    cut = " (axis cut)" if floor else ""
    figure.update_yaxes(
        axis(f"mean end-to-end latency, {unit}{cut}", range=[factor * floor, factor * (low + 1.15 * span)])
    )
    return figure


def _term_colour(term: Term) -> str:
    return family_colour(term.name) if term.kind == "family" else TERM_COLOURS.get(term.kind, FAINT)


def order_figure(order: PlanOrder) -> go.Figure:
    """Predicted over measured value of each plan."""
    every = np.array([*order.predicted, *order.measured])
    ends = np.array([0.0, float(every.max()) * 1.1])
    figure = go.Figure(layout=layout(400, showlegend=False, margin=ROOM_ABOVE))
    _diagonal(figure, ends)
    figure.add_scatter(
        x=order.measured, y=order.predicted, mode="markers+text", text=order.names,
        textposition=[("top center", "bottom center")[rank % 2] for rank in np.argsort(np.argsort(order.measured))],
        marker={"color": ACCENT, "size": 10}, cliponaxis=False,
        error_x={"type": "percent", "value": 100 * order.noise, "visible": order.noise > 0, "color": FAINT},
        hovertemplate="<b>%{text}</b><br>measured %{x:.4g}, predicted %{y:.4g}<extra></extra>",
    )  # fmt: skip
    unit = metric_unit(order.metric)
    words = f"{metric_words(order.metric)}{f', {unit}' if unit else ''}"
    figure.update_xaxes(axis(f"measured {words}", range=ends.tolist()))
    figure.update_yaxes(axis(f"predicted {words}", range=ends.tolist()))
    return figure
