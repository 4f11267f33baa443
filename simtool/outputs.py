"""What a command leaves behind: JSON objects and the files of an output folder."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from simtool.errors import InfeasibleError
from simtool.json_text import json_text
from simtool.metrics import Result, Slo, meets_slo, result_json, vllm_block
from simtool.plan import Plan
from simtool.plan_file import plan_dict, plan_json
from simtool.planners.question import Answer
from simtool.run import Run
from simtool.vllm_text import COUNTS
from simtool.workload import Workload


def answer_object(answer: Answer) -> dict[str, Any]:
    """The one object of `simtool plan --json`."""
    question = answer.question
    return {
        "plan": plan_dict(answer.best.plan),
        "objective": {"name": question.objective, "value": answer.best.objective, "bound": answer.best.bound},
        "metrics": _whole_counts(answer.best.metrics or {}),
        "intervals": {key: list(ends) for key, ends in answer.intervals.items()},
        "meets_slo": answer.best.meets_slo,
        "legal": answer.legal,
        "simulated": answer.simulated,
        "pruned": answer.pruned,
        "illegal": dict(answer.illegal),
        "gap": answer.gap,
        "provenance": dict(answer.provenance),
        "wall_s": answer.wall_s,
    }


def infeasible_object(error: InfeasibleError) -> dict[str, Any]:
    """The one object of `simtool plan --json` where no plan exists."""
    return {
        "plan": None,
        "infeasible": {"constraint": error.constraint, "detail": error.detail, "relaxation": error.relaxation},
    }


def run_object(run: Run) -> dict[str, Any]:
    """The one object of `simtool simulate --json`."""
    met = None if not limited(run.slo) else not missed(run.result, run.slo)
    return {
        "plan": plan_dict(run.plan),
        "metrics": _whole_counts(run.metrics),
        "meets_slo": met,
        "provenance": dict(run.provenance),
        "wall_s": run.wall_s,
    }


def _whole_counts(metrics: Mapping[str, float]) -> dict[str, float | int]:
    """Metrics with their counts as whole numbers, as vLLM's result file has them."""
    return {key: int(value) if key in COUNTS and isfinite(value) else value for key, value in metrics.items()}


def benchmark_block(metrics: Mapping[str, float], workload: Workload, slo: Slo) -> str:
    """vLLM's benchmark block for a run of `workload`."""
    from simtool.traces import mean_rate

    return vllm_block(
        metrics,
        request_rate=float("inf") if workload.max_concurrency else mean_rate(workload),
        max_concurrency=workload.max_concurrency,
        goodput=limited(slo),
    )


def limited(slo: Slo) -> bool:
    """Whether the SLO sets any limit."""
    return max(slo.ttft_s, slo.tpot_s, slo.e2e_s) > 0


def missed(result: Result, slo: Slo) -> bool:
    """Whether there is an SLO and the run does not meet it."""
    return limited(slo) and not meets_slo(result, slo)


def write_files(
    folder: Path, *, plan: Plan, result: Result, metrics: Mapping[str, float], settings: Mapping[str, object], page: str
) -> None:
    """plan.json, result.json, requests.npz, timeline.json, report.html. `result` holds step records."""
    from simtool.measured import save_requests
    from simtool.timeline import write_timeline

    (folder / "plan.json").write_text(plan_json(plan), encoding="utf-8")
    saved = result_json(result, metrics, settings=settings, save_detailed=False)
    (folder / "result.json").write_text(json_text(saved), encoding="utf-8")
    save_requests(result, folder / "requests.npz")
    write_timeline(plan, result, folder / "timeline.json")
    (folder / "report.html").write_text(page, encoding="utf-8")


def write_answer(answer: Answer, folder: Path) -> None:
    """The files of `simtool plan --out`."""
    from simtool.report.gather import contents_of_answer
    from simtool.report.page import report_page

    contents = contents_of_answer(answer)
    settings = _settings(answer.best.plan, answer.question.workload)
    write_files(
        folder,
        plan=answer.best.plan,
        result=contents.result,
        metrics=contents.metrics,
        settings=settings,
        page=report_page(contents),
    )


def write_run(run: Run, folder: Path) -> None:
    """The files of `simtool simulate --out`."""
    from simtool.report.gather import contents_of_run
    from simtool.report.page import report_page

    contents = contents_of_run(run)
    settings = _settings(run.plan, run.workload)
    write_files(
        folder,
        plan=run.plan,
        result=contents.result,
        metrics=run.metrics,
        settings=settings,
        page=report_page(contents),
    )


def _settings(plan: Plan, workload: Workload) -> dict[str, object]:
    """The settings that vLLM's benchmark writes beside its metrics."""
    from simtool.traces import mean_rate

    rate = mean_rate(workload)
    return {
        "backend": plan.kernel_library,
        "model_id": plan.model,
        "request_rate": rate if rate != float("inf") else "inf",
        "max_concurrency": workload.max_concurrency or None,
    }
