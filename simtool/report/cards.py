"""The key numbers as cards, each with its interval where there is one."""

from __future__ import annotations

import math

from simtool.report.card import Card, cards_row
from simtool.report.contents import Contents
from simtool.report.money import cost_per_million_tokens, joules_per_token, kwh_per_million_tokens
from simtool.report.wording import number


def cards_html(contents: Contents) -> str:
    """All cards, the first one accented."""
    return cards_row(_cards(contents))


def _cards(contents: Contents) -> list[Card]:
    metrics, devices = contents.metrics, contents.plan.devices

    def get(key: str) -> float:
        return float(metrics.get(key, math.nan))

    def interval(key: str, share: float = 1.0) -> tuple[float, float] | None:
        found = contents.intervals.get(key)
        return (found[0] * share, found[1] * share) if found else None

    output, requests = get("output_throughput"), f"{number(get('request_throughput'))} requests/s"
    cards = [
        Card(name="Output per GPU", value=output / devices, unit="tok/s", more=f"GPUs in use: {devices}",
             interval=interval("output_throughput", 1 / devices)),
        Card(name="Output throughput", value=output, unit="tok/s", more=requests,
             interval=interval("output_throughput")),
        *(Card(name=f"Mean {name}", value=get(f"mean_{key}_ms"), unit="ms",
               more=f"p99 {number(get(f'p99_{key}_ms'))} ms",
               interval=interval(f"mean_{key}_ms")) for name, key in (("TTFT", "ttft"), ("TPOT", "tpot"))),
        Card(name="Mean end to end", value=get("mean_e2el_ms") / 1e3, unit="s",
             more=f"p99 {number(get('p99_e2el_ms') / 1e3)} s", interval=interval("mean_e2el_ms", 1e-3)),
    ]  # fmt: skip
    slo = contents.slo
    attainment = get("slo_attainment") if max(slo.ttft_s, slo.tpot_s, slo.e2e_s) > 0 else math.nan
    good = get("request_goodput")
    cards.append(Card(name="Within the SLO", value=100 * attainment, unit="% of requests",
                      more=f"{number(good)} good requests/s" if not math.isnan(good) else ""))  # fmt: skip
    cost = cost_per_million_tokens(contents)
    cards.append(Card(name="Cost", value=cost, unit="$/M tokens", more="the GPUs' price only"))
    more = f"{number(kwh_per_million_tokens(contents))} kWh per M output tokens"
    cards.append(Card(name="Energy", value=joules_per_token(contents), unit="J/token", more=more))
    return cards
