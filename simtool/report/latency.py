"""Figures of one run: latency distributions and time lines."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from simtool.metrics import Result, Slo, request_latencies
from simtool.report.style import ACCENT, FAINT, SLATE, WARM, axis, layout

Array = NDArray[np.float64]
_CDF_POINTS = 300
_TIME_BINS = 600


def latency_figure(result: Result, slo: Slo) -> go.Figure:
    """Cumulative distributions of TTFT, TPOT and end-to-end latency, with the SLO limit where there is one."""
    known = request_latencies(result)
    ttft_s, tpot_s, e2e_s = (column[np.isfinite(column)] for column in (known.ttft_s, known.tpot_s, known.e2e_s))
    figure = make_subplots(rows=1, cols=3, shared_yaxes=True, horizontal_spacing=0.04)
    panels = (("TTFT", ttft_s, slo.ttft_s), ("TPOT", tpot_s, slo.tpot_s), ("end to end", e2e_s, slo.e2e_s))
    for column, (name, values_s, limit_s) in enumerate(panels, 1):
        unit, factor = ("ms", 1e3) if len(values_s) == 0 or np.median(values_s) < 5.0 else ("s", 1.0)
        shares = np.linspace(0, 1, _CDF_POINTS)
        quantiles = np.quantile(values_s, shares) * factor if len(values_s) else np.empty(0)
        figure.add_scatter(
            x=quantiles, y=100 * shares[: len(quantiles)], mode="lines", name=name, row=1, col=column,
            line={"color": ACCENT, "width": 2}, showlegend=False,
            hovertemplate="%{y:.1f}% of requests ≤ %{x:.4g} " + unit + f"<extra>{name}</extra>",
        )  # fmt: skip
        if limit_s:
            figure.add_vline(
                x=limit_s * factor, row=1, col=column, line={"color": WARM, "width": 1.4, "dash": "dash"},
                annotation={"text": "SLO", "font": {"color": WARM, "size": 12}},
            )  # fmt: skip
        figure.update_xaxes(axis(f"{name}, {unit}", rangemode="tozero"), row=1, col=column)
    figure.update_yaxes(axis("", range=[0, 101], ticksuffix="%"))
    figure.update_yaxes(title={"text": "share of requests"}, row=1, col=1)
    figure.update_layout(layout(320))
    return figure


def timeline_figure(result: Result) -> go.Figure:
    """Waiting and running requests, tokens a step and KV use over time."""
    panels = _panels(result)
    figure = make_subplots(rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.06)
    for row, (title, lines) in enumerate(panels, 1):
        for name, x, y, colour in lines:
            figure.add_scatter(
                x=x, y=y, mode="lines", name=name, row=row, col=1, line={"color": colour, "width": 1.6, "shape": "hv"},
                hovertemplate="%{y:.4g} at %{x:.4g} s" + f"<extra>{name}</extra>",
            )  # fmt: skip
        figure.update_yaxes(axis(title, rangemode="tozero", nticks=4), row=row, col=1)
    figure.update_xaxes(axis(""))
    figure.update_xaxes(title={"text": "time, s"}, row=len(panels), col=1)
    figure.update_layout(layout(150 * len(panels) + 60))
    return figure


def _panels(result: Result) -> list[tuple[str, list[tuple[str, Array, Array, str]]]]:
    """Title and lines (name, x, y, colour) of each time line that the run has numbers for."""
    ran = np.isfinite(result.finish_s)
    end_s = float(result.finish_s[ran].max()) if ran.any() else 0.0
    edges_s = np.linspace(0.0, max(end_s, 1e-9), _TIME_BINS + 1)
    sent, started, done = (_count_before(c[ran], edges_s) for c in (result.sent_s, result.scheduled_s, result.finish_s))
    panels = [
        ("requests", [("waiting", edges_s, sent - started, WARM), ("running", edges_s, started - done, ACCENT)]),
        ("output tok/s", [("output tokens/s", edges_s[:-1], _token_rate(result, edges_s), SLATE)]),
    ]
    steps = result.steps
    if len(steps.get("start_s", ())):
        batch = _worst(steps["start_s"], steps["decode_requests"], edges_s)
        chunks = _worst(steps["start_s"], steps["prefill_tokens"], edges_s)
        panels.append(
            ("tokens a step", [("prefill", edges_s[:-1], chunks, FAINT), ("decode", edges_s[:-1], batch, ACCENT)])
        )
        capacity = max(max(result.kv_blocks, default=1), 1)
        use = 100 * _worst(steps["start_s"], steps["kv_blocks"], edges_s) / capacity
        panels.append(("KV use, %", [("KV blocks held, fullest replica", edges_s[:-1], use, SLATE)]))
    return panels


def _count_before(times_s: Array, edges_s: Array) -> Array:
    """How many of `times_s` are not after each edge."""
    return np.searchsorted(np.sort(times_s), edges_s, side="right").astype(np.float64)


def _token_rate(result: Result, edges_s: Array) -> Array:
    """Output tokens a second in each bin, each request's tokens spread evenly from its first to its last."""
    ran = np.isfinite(result.finish_s)
    first_s, last_s = result.first_token_s[ran], result.finish_s[ran]
    rate = result.output_tokens[ran] / np.maximum(last_s - first_s, 1e-6)
    order_first, order_last = np.argsort(first_s), np.argsort(last_s)

    def area(times_s: Array, rates: Array) -> Array:
        """Tokens of lines that start at sorted `times_s` and never end, up to each edge."""
        at = np.searchsorted(times_s, edges_s, side="right")
        slope = np.concatenate([[0.0], np.cumsum(rates)])[at]
        moment = np.concatenate([[0.0], np.cumsum(rates * times_s)])[at]
        return np.asarray(slope * edges_s - moment)

    made = area(first_s[order_first], rate[order_first]) - area(last_s[order_last], rate[order_last])
    return np.maximum(np.diff(made) / np.diff(edges_s), 0.0)


def _worst(start_s: Array, values: Array, edges_s: Array) -> Array:
    """The largest value of the steps that start in each bin; an empty bin keeps the one before."""
    bins = np.clip(np.searchsorted(edges_s, start_s, side="right") - 1, 0, len(edges_s) - 2)
    worst = np.full(len(edges_s) - 1, -np.inf)
    np.maximum.at(worst, bins, values)
    known = np.where(np.isfinite(worst), np.arange(len(worst)), 0)
    filled: Array = worst[np.maximum.accumulate(known)]
    return np.where(np.isfinite(filled), filled, 0.0)
