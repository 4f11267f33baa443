"""What `simtool validate` compares: the plan and the requests that files, flags and the measurement state."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simtool.calibration.validation.measurement import Measurement
    from simtool.plan import Plan
    from simtool.scenario import Scenario
    from simtool.workload import Workload

_PRICING = {"profiles", "kernel_library"}


def plan_asked(plan_file: Path | None, asked: Scenario, measurement: Measurement) -> Plan | None:
    """The plan that files and flags state, with what the measurement says of its engine; None: they state none."""
    from simtool.asking import adjusted, plan_of
    from simtool.errors import InputError
    from simtool.plan_file import load_plan

    if plan_file is not None:
        return adjusted(load_plan(plan_file), asked)
    if measurement.execution is not None:
        for name in asked.model_fields_set & {"model", "devices", "engine"}:
            raise InputError(name, f"{measurement.source} states the plan that it ran", "leave it out")
        return adjusted(measurement.execution.plan, asked) if asked.model_fields_set & _PRICING else None
    if not asked.model_fields_set & {"model", "devices"}:
        return None
    engine = asked.engine
    stated = {key: value for key, value in measurement.engine.items() if key not in engine.model_fields_set}
    merged = type(engine).model_validate({**engine.model_dump(exclude_unset=True), **stated})
    return plan_of(asked.model_copy(update={"engine": merged}))


def workload_asked(plan: Plan, asked: Scenario, measurement: Measurement) -> Workload:
    """The measurement's own requests where it states them and no flag says how they come; else the flags'."""
    if measurement.workload is None or (measurement.execution is None and _states_load(asked)):
        return _by_flags(plan, asked, measurement)
    return measurement.workload


def _states_load(asked: Scenario) -> bool:
    """Whether flags say how requests come, which a benchmark's file then does not."""
    return bool(asked.workload.model_fields_set & {"request_rate", "max_concurrency", "trace", "burstiness"})


def _by_flags(plan: Plan, asked: Scenario, measurement: Measurement) -> Workload:
    """The flags' workload; the measurement's own lengths under the flags' load where they state none."""
    from dataclasses import replace

    import numpy as np

    from simtool.asking import workload_for
    from simtool.traces import arrivals
    from simtool.workload import make_workload

    section = asked.workload
    lengths = {"trace", "num_prompts", "input_len", "output_len", "prefix_len", "turns"}
    result = measurement.result
    if result is None or section.model_fields_set & lengths:
        return workload_for(plan, asked)
    rate = float("inf") if section.request_rate is None else section.request_rate
    rng = np.random.default_rng(section.seed)
    arrival_s = arrivals(len(result.sent_s), rate, section.burstiness, rng)
    made = make_workload(arrival_s, result.input_tokens, result.output_tokens, source=measurement.source)
    return replace(made, max_concurrency=section.max_concurrency)


def executed_here(plan_file: Path | None, asked: Scenario, device: str, layers: int) -> Measurement:
    """The plan, run on this machine."""
    from simtool.asking import workload_for
    from simtool.calibration.executor.request import ExecuteRequest
    from simtool.calibration.validation.executing import executed
    from simtool.calibration.validation.reading import of_execution
    from simtool.cli_simulate import plan_to_run
    from simtool.terminal import progress

    plan = plan_to_run(plan_file, asked)
    request = ExecuteRequest(device=device, layers=layers)  # type: ignore[arg-type]
    with progress("executing"):
        return of_execution(executed(plan, workload_for(plan, asked), request), "this machine")
