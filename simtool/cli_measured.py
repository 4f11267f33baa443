"""What `simtool validate` compares: the plan and the requests that files, flags and the measurement state."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from simtool.errors import InputError

if TYPE_CHECKING:
    from simtool.calibration.validation.measurement import Measurement
    from simtool.metrics import Result
    from simtool.plan import Plan
    from simtool.scenario import Scenario
    from simtool.workload import Workload

_PRICING = {"profiles", "kernel_library"}
_LOAD = {"request_rate", "max_concurrency", "burstiness"}
_LENGTHS = {"trace", "num_prompts", "input_len", "output_len", "prefix_len", "turns"}


def check_used(plan_file: Path | None, asked: Scenario, measurement: Measurement) -> None:
    """Raise InputError for the first key that states what a file beside it states, so that it would do nothing."""
    if measurement.execution is not None:
        for name in sorted(asked.model_fields_set & {"model", "devices", "engine", "workload"}):
            what = "requests" if name == "workload" else "plan"
            raise InputError(_named(name, asked), f"{measurement.source} states the {what} that it ran", "leave it out")
    for name in ("model", "devices"):
        if plan_file is not None and name in asked.model_fields_set:
            raise InputError(name, f"the plan file {plan_file} states it", "leave one of the two out")
    unused = sorted(asked.workload.model_fields_set - _used(asked, measurement))
    if unused:
        rule = f"would do nothing: the requests are those of {measurement.source}"
        hint = "leave it out, or say with --request-rate or --max-concurrency how other requests came"
        raise InputError(f"workload.{unused[0]}", rule, hint)


def _named(section: str, asked: Scenario) -> str:
    """A section by its first key that was given."""
    keys = getattr(getattr(asked, section), "model_fields_set", ())
    return ".".join((section, *sorted(keys)[:1]))


def _used(asked: Scenario, measurement: Measurement) -> set[str]:
    """The workload keys that say something which the measurement does not."""
    given = asked.workload.model_fields_set
    if measurement.result is None or (_states_load(asked) and given & _LENGTHS):
        return set(given)
    return _LOAD | {"seed"} if _states_load(asked) else set()


def plan_asked(plan_file: Path | None, asked: Scenario, measurement: Measurement) -> Plan | None:
    """The plan that files and flags state, with what the measurement says of its engine; None: they state none."""
    from simtool.adjusting import adjusted
    from simtool.asking import plan_of
    from simtool.plan_file import load_plan

    if plan_file is not None:
        return adjusted(load_plan(plan_file), asked)
    if measurement.execution is not None:
        return adjusted(measurement.execution.plan, asked) if asked.model_fields_set & _PRICING else None
    if not asked.model_fields_set & {"model", "devices"}:
        return None
    engine = asked.engine
    stated = {key: value for key, value in measurement.engine.items() if key not in engine.model_fields_set}
    merged = type(engine).model_validate({**engine.model_dump(exclude_unset=True), **stated})
    return plan_of(asked.model_copy(update={"engine": merged}))


def workload_asked(plan: Plan, asked: Scenario, measurement: Measurement) -> Workload:
    """The measurement's own requests where it states them and no flag says how they come; else the flags'.

    Raises InputError where neither says which requests these were, or how they came: a default would be another run.
    """
    from simtool.asking import workload_for

    if measurement.workload is not None and (measurement.execution is not None or not _states_load(asked)):
        return measurement.workload
    given, result = asked.workload.model_fields_set, measurement.result
    if result is None:
        _check_stated(given, measurement)
        return workload_for(plan, asked)
    if not _states_load(asked):
        rule = "does not say how its requests came"
        raise InputError(measurement.source, rule, "give --request-rate, or --max-concurrency (0: all at once)")
    return workload_for(plan, asked) if given & _LENGTHS else _under_load(measurement, result, asked)


def with_load(measurement: Measurement, asked: Scenario) -> Measurement:
    """The measurement; of metrics alone, with a note where no flag says how the requests came."""
    from dataclasses import replace

    if measurement.result is not None or _states_load(asked):
        return measurement
    told = "all requests at once, as neither --request-rate nor --max-concurrency says how they came"
    return replace(measurement, notes=(*measurement.notes, told))


def _check_stated(given: set[str], measurement: Measurement) -> None:
    """Raise InputError unless the flags state the requests of a file that has metrics alone."""
    missing = [name for name in ("num_prompts", "input_len", "output_len") if name not in given]
    if "trace" in given or not missing:
        return
    flags = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
    count = int(measurement.metrics.get("completed", 0))
    of = f" of its {count:,} requests" if count else ""
    rule = f"has metrics alone{of}, and {flags} would be a guess"
    raise InputError(measurement.source, rule, "give the lengths and number of requests that were sent, or --trace")


def _states_load(asked: Scenario) -> bool:
    """Whether flags say how requests come, which a benchmark's file then does not."""
    return bool(asked.workload.model_fields_set & (_LOAD | {"trace"}))


def _under_load(measurement: Measurement, result: Result, asked: Scenario) -> Workload:
    """The measurement's own lengths under the flags' load."""
    from dataclasses import replace

    import numpy as np

    from simtool.traces import arrivals
    from simtool.workload import make_workload

    section = asked.workload
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
