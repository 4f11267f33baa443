"""The answer in a sentence, and what backs it."""

from __future__ import annotations

import math
from html import escape

from simtool.metrics import Result
from simtool.planners.question import Answer
from simtool.report.contents import Contents
from simtool.report.wording import OBJECTIVES, devices_phrase, duration, number, plan_phrase
from simtool.summaries import overload_wait_s


def title(contents: Contents) -> str:
    """The browser tab's title."""
    return f"{_model(contents)} on {devices_phrase(contents.plan.cluster)} · simtool"


def headline(contents: Contents) -> str:
    """The answer as one HTML sentence."""
    rate = contents.metrics.get("output_throughput", math.nan) / contents.plan.devices
    tpot_s = contents.metrics.get("mean_tpot_ms", math.nan) / 1e3
    ttft_s = contents.metrics.get("mean_ttft_ms", math.nan) / 1e3
    speed = f"first token after {duration(ttft_s)}, then one every {duration(tpot_s)}"
    plan = f"{escape(_model(contents))} as <em>{escape(plan_phrase(contents.plan))}</em>"
    return f"{'Run ' if contents.answer else ''}{plan}: {number(rate)} output tokens/s per GPU, {speed} on average."


def lead(contents: Contents) -> str:
    """What the sentence rests on, as HTML."""
    answer = contents.answer
    workload = escape(contents.facts.get("workload", ""))
    if answer is None:
        return f"One simulated run of this plan. {workload}{_problem(overload(contents.result))}"
    name, unit = OBJECTIVES[answer.question.objective]
    value = answer.best.objective
    best = f"{number(value, 4)} {unit}" if value is not None else ""
    proof = (
        f"<strong>Proven best of {answer.legal:,} legal plans</strong> for {name} ({best}): each of the others was "
        "simulated and falls short, or cannot win even by its optimistic bound"
        if answer.gap <= 0
        else f"<strong>Best of {answer.legal:,} legal plans found</strong> for {name} ({best}): what was not simulated "
        f"could be better by at most {100 * answer.gap:.2g}%"
    )
    missed = answer.best.meets_slo is False
    warning = _problem("No plan meets the SLO; this one comes closest." if missed else overload(answer.result))
    took = duration(answer.wall_s).replace(" ", "&nbsp;")
    done = f"{answer.simulated:,} were simulated on {workload or 'the workload'} in {took}"
    return f"{proof}. {done}.{escape(_no_limit(answer))}{warning}"


def _problem(text: str) -> str:
    """A warning as HTML, set off from what comes before it."""
    return f' <span class="problem">{escape(text.strip())}</span>' if text else ""


def plain_lead(answer: Answer) -> str:
    """What the answer rests on, as text."""
    name, unit = OBJECTIVES[answer.question.objective]
    value = answer.best.objective
    reached = f" ({number(value, 4)} {unit})" if value is not None else ""
    proof = (
        f"Proven best of {answer.legal:,} legal plans"
        if answer.gap <= 0
        else f"Best found of {answer.legal:,} legal plans"
    )
    counts = f"{answer.simulated:,} simulated, {answer.pruned:,} pruned by their bound"
    took = f"gap {100 * answer.gap:.3g}%, {duration(answer.wall_s)}"
    return f"{proof} for {name}{reached}: {counts}, {took}.{_no_limit(answer)}{overload(answer.result)}"


def overload(result: Result) -> str:
    """A warning where requests come faster than the plan serves them."""
    counted = slice(result.warmup_requests, None)
    wait_s = overload_wait_s(result.sent_s[counted], result.scheduled_s[counted])
    if not wait_s:
        return ""
    return (
        f" Requests come faster than this plan serves them: the last ones wait {duration(wait_s)}. "
        "Limits (--slo) leave only plans that keep up."
    )


def _no_limit(answer: Answer) -> str:
    """A word to those who asked for throughput or cost and set no latency limit: the answer may be slow."""
    slo = answer.question.slo
    free = max(slo.ttft_s, slo.tpot_s, slo.e2e_s) == 0
    careless = answer.question.objective not in ("latency", "ttft", "tpot")
    return " No latency limit was set (--slo)." if free and careless else ""


def plain_sentence(answer: Answer) -> str:
    """The answer as one line of text."""
    plan = answer.best.plan
    model = plan.model.removesuffix("/config.json").rsplit("/", 1)[-1]
    return f"{model} on {devices_phrase(plan.cluster)}: run {plan_phrase(plan)}."


def _model(contents: Contents) -> str:
    """The model's name, or for a config.json the name of its folder."""
    name = contents.plan.model.removesuffix("/config.json").removesuffix(".json")
    return contents.facts.get("model", name.rsplit("/", 1)[-1])
