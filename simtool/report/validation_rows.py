"""A validation as rows of text: what the terminal prints is what the page shows."""

from __future__ import annotations

import math

from simtool.report.calibration_wording import family_words, percent
from simtool.report.wording import duration, number
from simtool.validation import Attribution, Gate, HostFit, MetricRow, PlanOrder, StepErrors, Term, Validation

_NAMES = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2el": "end to end"}
_RATES = {
    "output_throughput": ("output tokens", "tok/s"),
    "total_token_throughput": ("all tokens", "tok/s"),
    "request_throughput": ("requests", "req/s"),
    "duration": ("duration", "s"),
}
METRIC_HEADS = ("metric", "predicted", "90% interval", "measured", "error", "noise", "inside")
STEP_HEADS = ("steps", "number", "of the time", "median error", "p95", "bias", "in 90%", "noise")
TERM_HEADS = ("measured − predicted", "mean end to end", "", "duration", "", "steps measured", "steps priced")
ORDER_HEADS = ("plan", "predicted", "rank", "measured", "rank", "error")
_ROUNDING = 1e-7  # of the whole: a term below is 0
_SHOWN = ("mean", "median", "p90", "p99")


def metric_words(key: str) -> str:
    """ "p99_ttft_ms" as "p99 TTFT"."""
    if key in _RATES:
        return _RATES[key][0]
    kind, _, rest = key.partition("_")
    name = rest.removesuffix("_ms")
    return f"{kind} {_NAMES[name]}" if name in _NAMES else key.replace("_", " ")


def metric_unit(key: str) -> str:
    """As the key has it; "" for shares and counts."""
    return "ms" if key.endswith("_ms") else _RATES[key][1] if key in _RATES else ""


def metric_value(key: str, value: float) -> str:
    """With its unit."""
    if key.endswith("_ms"):
        return duration(value * 1e-3)
    if key == "duration":
        return duration(value)
    return f"{number(value)} {_RATES[key][1]}" if key in _RATES else number(value)


def shown_metrics(validation: Validation) -> list[MetricRow]:
    """The metrics that are looked at first: headline latencies and rates; no percentile of too few requests."""
    return [
        row
        for row in validation.metrics
        if row.key in _RATES
        or (row.key.partition("_")[0] in _SHOWN and row.key.split("_")[1] in ("ttft", "tpot", "e2el") and not row.few)
    ]


def metric_rows(validation: Validation) -> list[tuple[str, ...]]:
    """Cells of METRIC_HEADS."""
    return [
        (
            metric_words(row.key),
            metric_value(row.key, row.predicted),
            f"{metric_value(row.key, row.lower)} – {metric_value(row.key, row.upper)}",
            metric_value(row.key, row.measured),
            signed(row.error),
            share(row.noise),
            "yes" if row.inside else "no",
        )
        for row in shown_metrics(validation)
    ]


def step_rows(validation: Validation) -> list[tuple[str, ...]]:
    """Cells of STEP_HEADS, all steps first."""
    groups = (validation.overall, *validation.groups)
    return [errors_row(group) for group in groups if group is not None]


def errors_row(group: StepErrors) -> tuple[str, ...]:
    """Cells of STEP_HEADS."""
    return (
        group.label,
        f"{group.steps:,}",
        f"{100 * group.share:.0f}%",
        share(group.median),
        share(group.p95),
        signed(group.bias),
        f"{100 * group.inside:.0f}%",
        share(group.noise),
    )


def term_rows(attribution: Attribution) -> list[tuple[str, ...]]:
    """Cells of TERM_HEADS: each term in seconds and of the measured whole, their sum last."""
    rows = [_term_row(term_words(term), term, attribution) for term in attribution.terms]
    whole = Term(
        name="all",
        kind="rest",
        e2e_s=attribution.measured_e2e_s - attribution.predicted_e2e_s,
        duration_s=attribution.measured_duration_s - attribution.predicted_duration_s,
    )
    return [*rows, _term_row("measured − predicted", whole, attribution)]


def _term_row(words: str, term: Term, whole: Attribution) -> tuple[str, ...]:
    e2e_s, duration_s = (
        seconds if abs(seconds) > _ROUNDING * of else 0.0
        for seconds, of in ((term.e2e_s, whole.measured_e2e_s), (term.duration_s, whole.measured_duration_s))
    )
    return (
        words,
        _signed_time(e2e_s),
        signed(e2e_s / whole.measured_e2e_s),
        _signed_time(duration_s),
        signed(duration_s / whole.measured_duration_s),
        duration(term.measured_s),
        duration(term.priced_s),
    )


def _signed_time(seconds: float) -> str:
    return "0" if seconds == 0 else f"{'+' if seconds > 0 else '−'}{duration(abs(seconds))}"


def term_words(term: Term) -> str:
    """A term's name."""
    return family_words(term.name) if term.kind == "family" else term.name


def order_rows(order: PlanOrder) -> list[tuple[str, ...]]:
    """Cells of ORDER_HEADS, best measured first."""
    ranks = [_ranks(values, order.greater_is_better) for values in (order.predicted, order.measured)]
    rows = [
        (
            name,
            metric_value(order.metric, predicted),
            str(predicted_rank),
            metric_value(order.metric, measured),
            str(measured_rank),
            signed(predicted / measured - 1 if measured else math.nan),
        )
        for name, predicted, measured, predicted_rank, measured_rank in zip(
            order.names, order.predicted, order.measured, *ranks, strict=True
        )
    ]
    return [row for _, row in sorted(zip(ranks[1], rows, strict=True), key=lambda pair: pair[0])]


def _ranks(values: tuple[float, ...], greater_is_better: bool) -> list[int]:
    order = sorted(values, reverse=greater_is_better)
    return [order.index(value) + 1 for value in values]


def order_words(order: PlanOrder) -> str:
    """Whether the order was right."""
    top = "The best plan is predicted" if order.top1 else "The best plan is NOT the one predicted"
    if len(set(order.predicted)) == 1:
        top = "The prediction tells no plan from another"
    pairs = len(order.names) * (len(order.names) - 1) // 2
    told = f"{order.tau:.2f} over {_pairs(pairs) if pairs == 1 else 'all pairs'}"
    if math.isnan(order.tau):
        side = "predicted" if len(set(order.predicted)) == 1 else "measured"
        told = f"none, as all plans are {side} alike"
    noise = f" than the noise of {percent(order.noise)}" if order.noise else ""
    rest = f"no pair differs by more{noise}"
    if order.clear_pairs:
        differ = "differs" if order.clear_pairs == 1 else "differ"
        rest = f"{order.clear_tau:.2f} over the {_pairs(order.clear_pairs)} that {differ} by more{noise}"
    by = f"{top} ({metric_words(order.metric)}). Kendall's tau: {told}"
    if not order.noise and (order.clear_pairs in (0, pairs)):  # the same pairs: said once
        return f"{by}."
    return f"{by}, {rest}."


def _pairs(count: int) -> str:
    return "one pair" if count == 1 else f"{count} pairs"


def host_words(fit: HostFit) -> str:
    """The fitted host's terms, and what they do."""
    return (
        f"Host fitted on {fit.half}: a step {duration(fit.base_s)}, a request {duration(fit.per_request_s)}, "
        f"gap {duration(fit.gap_s)}. Median step error {share(fit.before.median)} before, {share(fit.after.median)} "
        f"after (bias {signed(fit.before.bias)} and {signed(fit.after.bias)}; {fit.after.steps:,} steps held out)."
    )


def host_warning(fit: HostFit) -> str:
    """What is to be said where the fit does not help; "" where it does."""
    if fit.helps:
        return ""
    return "The fit does not help: the error of the steps held out is not below the one without it. Keep the old times."


def gate_words(gate: Gate) -> str:
    """A demand and what was found."""
    if gate.name == "schedule identical":
        return f"{gate.name}: {'yes' if gate.passed else 'no'}"
    words = gate.name if gate.name == "median step" else metric_words(gate.name)
    return f"{words}: {share(gate.found)}, limit {share(gate.limit)}{'' if gate.passed else ' (failed)'}"


def share(value: float) -> str:
    """A share as a percentage; a dash where it is not known."""
    return "–" if math.isnan(value) else percent(value)


def signed(value: float) -> str:
    """A share with its sign."""
    if math.isnan(value):
        return "–"
    return "0.0%" if abs(value) < 0.0005 else f"{100 * value:+.1f}%"
