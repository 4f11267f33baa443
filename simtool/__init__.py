"""simtool: a discrete-event performance simulator and plan optimizer for LLM inference.

    import simtool as st

    workload = st.synthesise(num_requests=500, input_len=1024, output_len=128, request_rate=4.0, rng=rng)
    answer = st.plan(st.Question(model="llama-3.1-70b", devices="8xh200", workload=workload))
    result = st.simulate(answer.best.plan, workload)

Names are loaded when they are first used, so that importing simtool costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simtool.plan import ExpertOffload, KvPolicy, Parallel, Plan, Pool, ProfileFile, Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable

    from simtool.errors import InfeasibleError, InputError, SimtoolError
    from simtool.hardware.cluster import parse_cluster
    from simtool.hardware.device import load_device
    from simtool.hardware.own_profiles import profile_files
    from simtool.metrics import Result, Slo, parse_slo, serving_metrics
    from simtool.models.config import load_architecture
    from simtool.plan_file import load_plan, plan_json
    from simtool.planners.question import Answer, Candidate, Question, Space
    from simtool.planners.schedule.step_plan import SolvedStep
    from simtool.scenario import load_scenario
    from simtool.simulator.explain import StepExplanation
    from simtool.simulator.overlap.step import OverlappedStep
    from simtool.traces import inspect_workload, read_trace, synthesise, write_trace
    from simtool.workload import Workload, make_workload

__all__ = [
    "Answer",
    "Candidate",
    "ExpertOffload",
    "InfeasibleError",
    "InputError",
    "KvPolicy",
    "OverlappedStep",
    "Parallel",
    "Plan",
    "Pool",
    "ProfileFile",
    "Question",
    "Result",
    "Scheduler",
    "SimtoolError",
    "Slo",
    "SolvedStep",
    "Space",
    "StepExplanation",
    "Workload",
    "compare_overlaps",
    "explain",
    "inspect_workload",
    "load_architecture",
    "load_device",
    "load_plan",
    "load_scenario",
    "make_workload",
    "parse_cluster",
    "parse_slo",
    "plan",
    "plan_json",
    "profile_files",
    "read_trace",
    "serving_metrics",
    "simulate",
    "solve_overlap",
    "synthesise",
    "write_report",
    "write_trace",
]

_HOMES = {
    "Answer": "simtool.planners.question",
    "Candidate": "simtool.planners.question",
    "InfeasibleError": "simtool.errors",
    "InputError": "simtool.errors",
    "Question": "simtool.planners.question",
    "Result": "simtool.metrics",
    "SimtoolError": "simtool.errors",
    "Slo": "simtool.metrics",
    "Space": "simtool.planners.question",
    "OverlappedStep": "simtool.simulator.overlap.step",
    "SolvedStep": "simtool.planners.schedule.step_plan",
    "StepExplanation": "simtool.simulator.explain",
    "Workload": "simtool.workload",
    "inspect_workload": "simtool.traces",
    "load_architecture": "simtool.models.config",
    "load_device": "simtool.hardware.device",
    "load_plan": "simtool.plan_file",
    "load_scenario": "simtool.scenario",
    "make_workload": "simtool.workload",
    "parse_cluster": "simtool.hardware.cluster",
    "parse_slo": "simtool.metrics",
    "plan_json": "simtool.plan_file",
    "profile_files": "simtool.hardware.own_profiles",
    "read_trace": "simtool.traces",
    "serving_metrics": "simtool.metrics",
    "synthesise": "simtool.traces",
    "write_trace": "simtool.traces",
}


# Defined after `simtool.plan` has been imported, so that `st.plan` is the function and not that module.
def plan(question: Question, *, progress: Callable[[str], None] | None = None) -> Answer:
    """The best plan for a question, with its Result and the proof that nothing better is in the space.

    Raises InputError for a malformed question and InfeasibleError where no plan can answer it.
    """
    from simtool.choosing import choose

    return choose(question, progress)


def simulate(plan: Plan, workload: Workload, *, exact_steps: bool = False, record_steps: bool = False) -> Result:
    """Run `workload` on `plan` in simulated time: one row a request, and one a step with `record_steps`.

    exact_steps: one iteration at a time instead of leaps; the same times to rounding, slower.
    """
    from simtool.run import simulate as run

    return run(plan, workload, exact_steps=exact_steps, record_steps=record_steps)


def explain(plan: Plan, batch: str, pool: int = 0) -> StepExplanation:
    """Where the time of one step goes, operator by operator; `batch` as "decode:64x2048+prefill:1x512@1024"."""
    from simtool.explaining import explain as explain_plan

    return explain_plan(plan, batch, pool)


def compare_overlaps(plan: Plan, batch: str, pool: int = 0) -> dict[str, OverlappedStep]:
    """The layers of one step under each stock overlap, by name: is it worth running kernels side by side?"""
    from simtool.overlapping import compare_overlaps as compare

    return compare(plan, batch, pool)


def solve_overlap(plan: Plan, batch: str, pool: int = 0, seconds: float = 30.0) -> SolvedStep:
    """A schedule found for the layers of one step, its bound and gap, and what it takes when simulated."""
    from simtool.overlapping import solve_overlap as solve

    return solve(plan, batch, pool, seconds)


def write_report(answer: Answer, path: str) -> None:
    """The interactive page of an answer, one self-contained HTML file, written whole or not at all."""
    from pathlib import Path

    from simtool.files import output_file
    from simtool.report.gather import contents_of_answer
    from simtool.report.page import report_page

    with output_file(Path(path)) as building:
        building.write_text(report_page(contents_of_answer(answer)), encoding="utf-8")


def __getattr__(name: str) -> Any:
    """Load a public name from its module (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'simtool' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
