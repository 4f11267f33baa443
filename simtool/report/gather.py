"""Gather what the page shows: step records, where time goes, other loads, prices, facts."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from simtool.errors import InputError, SimtoolError
from simtool.explaining import explain
from simtool.hardware.own_cluster import own_cluster
from simtool.hardware.price import price_per_hour
from simtool.metrics import Result, Slo
from simtool.models.config import load_architecture
from simtool.models.memory import stage_layers
from simtool.plan import Plan
from simtool.planners.question import Answer
from simtool.report.contents import Contents, LoadPoint, OperatorTime, StepTime
from simtool.report.money import devices_by_type
from simtool.report.shell import package_version
from simtool.report.wording import devices_phrase, number
from simtool.run import Run, simulate
from simtool.simulator.explain import StepExplanation
from simtool.sweep import first_part, load_now, loads_around, sweep_load
from simtool.traces import inspect_workload
from simtool.workload import Workload

_MAX_RECORDED = 50_000  # requests whose run is repeated for its step records
_MAX_SWEPT = 2_000  # requests of the sweep over loads


def contents_of_run(run: Run) -> Contents:
    """The page of one simulated run."""
    prices, source = prices_of(run.plan, run.prices)
    return _contents(
        run.plan, run.workload, run.slo, run.result, run.metrics, dollars=prices, price_source=source, answer=None
    )


def contents_of_answer(answer: Answer) -> Contents:
    """The page of an answer: its best plan, and the choice."""
    question, plan = answer.question, answer.best.plan
    prices, source = prices_of(plan, question.price_per_hour)
    metrics = dict(answer.best.metrics or {})
    return _contents(
        plan,
        question.workload,
        question.slo,
        answer.result,
        metrics,
        dollars=prices,
        price_source=source,
        answer=answer,
    )


def _contents(
    plan: Plan,
    workload: Workload,
    slo: Slo,
    result: Result,
    metrics: Mapping[str, float],
    *,
    dollars: Mapping[str, float],
    price_source: str,
    answer: Answer | None,
) -> Contents:
    now, axis = load_now(workload)
    steps = explained_steps(plan, result)
    provenance = {row.family: row.provenance for step in steps for row in step.rows}
    return Contents(
        plan=plan,
        result=recorded(plan, workload, result),
        metrics=metrics,
        cluster=own_cluster(plan.cluster, plan.profiles),
        slo=slo,
        intervals=answer.intervals if answer else {},
        answer=answer,
        steps=tuple(step_time(step) for step in steps),
        load=other_loads(plan, workload, slo),
        load_axis=axis,
        load_requests=min(_MAX_SWEPT, workload.num_requests),
        load_now=now,
        stage_layers=layer_labels(plan),
        price_per_hour=dollars,
        price_source=price_source,
        facts=facts(plan, workload, slo),
        provenance=answer.provenance if answer else provenance,
        version=package_version(),
    )


def recorded(plan: Plan, workload: Workload, result: Result) -> Result:
    """The run with its step records; the same run, made again, unless it is so long that they would not be read."""
    if len(result.steps.get("start_s", ())) or workload.num_requests > _MAX_RECORDED:
        return result
    return simulate(plan, workload, record_steps=True)


def explained_steps(plan: Plan, result: Result) -> list[StepExplanation]:
    """A decode step at the run's typical batch and context, and a prefill step of a typical prompt."""
    ran = np.isfinite(result.finish_s)
    if not ran.any():
        return []
    pool = plan.pools[0]
    decode_s = float((result.finish_s - result.first_token_s)[ran].sum())
    span_s = float(result.finish_s[ran].max() - result.sent_s[ran].min())
    ranks = max(sum(p.replicas * p.parallel.dp for p in plan.pools), 1)
    batch = min(max(1, round(decode_s / max(span_s, 1e-9) / ranks)), pool.scheduler.max_num_seqs)
    prompt = float(result.input_tokens[ran].mean())
    context = max(1, round(prompt + float(result.output_tokens[ran].mean()) / 2))
    chunk = max(1, min(round(prompt), pool.scheduler.max_num_batched_tokens))
    found = []
    for text in (f"decode:{batch}x{context}", f"prefill:1x{chunk}"):
        try:
            found.append(explain(plan, text))
        except SimtoolError:  # a typical batch of this run is no batch of this plan: the page goes without
            continue
    return found


def step_time(step: StepExplanation) -> StepTime:
    """The explanation as bars, the host's part among them."""
    operators = [
        OperatorTime(
            name=row.name,
            family=row.family,
            seconds=row.seconds,
            roofline_s=row.seconds * min(row.roofline_share, 1.0),
            provenance=f"{row.provenance}: {row.source}",
        )
        for row in step.rows
    ]
    rest_s = step.seconds - sum(operator.seconds for operator in operators)
    if rest_s > 0:
        host = OperatorTime(name="host and launches", family="host", seconds=rest_s, roofline_s=0.0, provenance="")
        operators.append(host)
    return StepTime(label=_batch_label(step), operators=tuple(operators), seconds=step.seconds)


def _batch_label(step: StepExplanation) -> str:
    batch = step.batch
    if batch.decodes:
        return f"Decode step, {batch.decodes:,} requests of {batch.decode_kv_tokens // batch.decodes:,} tokens"
    return f"Prefill step, {batch.tokens:,} prompt tokens"


def other_loads(plan: Plan, workload: Workload, slo: Slo) -> tuple[LoadPoint, ...]:
    """The plan from a quarter to twice the load, on the first part of the workload."""
    part = first_part(workload, _MAX_SWEPT)
    limited = max(slo.ttft_s, slo.tpot_s, slo.e2e_s) > 0
    return tuple(
        LoadPoint(
            load=point.value,
            attainment=point.metrics["slo_attainment"] if limited else math.nan,
            metrics=point.metrics,
        )
        for point in sweep_load(plan, part, slo, loads_around(part))
    )


def layer_labels(plan: Plan) -> dict[int, tuple[str, ...]]:
    """Pool number -> the layers of each stage, as the drawing writes them."""
    architecture = load_architecture(plan.model)
    labels = {}
    for place, pool in enumerate(plan.pools):
        stages = stage_layers(architecture, pool.parallel)
        whole = len(stages) == 1
        labels[place] = ("all layers",) if whole else tuple(f"L {layers[0]}–{layers[-1]}" for layers in stages)
    return labels


def prices_of(plan: Plan, own: Mapping[str, float]) -> tuple[dict[str, float], str]:
    """Dollars a device-hour by device, the user's own first, and a sentence that says where they come from."""
    prices, told = {}, []
    cluster = own_cluster(plan.cluster, plan.profiles)
    for name in devices_by_type(plan):
        device = cluster.group_of(name).device
        try:
            prices[name] = price_per_hour(device, own)
        except InputError:  # no public price: the page shows none
            continue
        listed = f"{device.sources.get('price', 'catalogue')}, {device.price_date}"
        told.append(f"{name}: {listed if prices[name] == device.price_per_hour else 'as given'}")
    return prices, f"Prices: {'; '.join(told)}." if told else "No price is known for these devices."


def facts(plan: Plan, workload: Workload, slo: Slo) -> dict[str, str]:
    """Label -> text of the question."""
    about = inspect_workload(workload)
    rate = about["request_rate_per_s"]
    if workload.max_concurrency:
        load = f"{workload.max_concurrency:,} in flight"
    else:
        load = f"{number(float(rate))} requests/s" if rate else "all at once"
    prompt, answer = (number(float(tokens.mean()), 4) for tokens in (workload.input_tokens, workload.output_tokens))
    told = {
        "model": plan.model.removesuffix("/config.json").rsplit("/", 1)[-1],
        "workload": f"{workload.num_requests:,} requests ({load}, mean {prompt} tokens in and {answer} out)",
        "source": workload.source or "–",
        "hardware": devices_phrase(plan.cluster),
        "engine": f"{plan.kernel_library}, weights {plan.weight_dtype}, KV cache {plan.pools[0].kv.dtype}",
    }
    limits = [("TTFT", slo.ttft_s), ("TPOT", slo.tpot_s), ("end to end", slo.e2e_s)]
    said = ", ".join(f"{name} ≤ {number(1e3 * limit_s)} ms" for name, limit_s in limits if limit_s)
    told["SLO"] = f"{said} for {100 * slo.attainment:g}% of requests" if said else "none"
    return told
