"""validate: a measured run against its prediction, all that is asked about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from simtool.calibration.executor.execution import Execution
from simtool.calibration.validation.aligning import check_again, check_aligned, metric_rows
from simtool.calibration.validation.attribution import attribute, parts_of
from simtool.calibration.validation.gates import FLOOR, gates
from simtool.calibration.validation.held import HeldSchedule, hold
from simtool.calibration.validation.host_fit import fit_host
from simtool.calibration.validation.measurement import Measurement, check_run_times
from simtool.calibration.validation.predicting import Prediction, Priced, predict, price_plan
from simtool.calibration.validation.step_table import compare_steps, errors_by_composition, errors_of
from simtool.errors import InputError
from simtool.plan import KvPolicy, Plan, Pool, Scheduler
from simtool.simulator.setup import request_latency_s
from simtool.validation import Validation
from simtool.workload import Workload


def validate(
    plan: Plan,
    measurement: Measurement,
    workload: Workload,
    *,
    again: Measurement | None = None,
    calibrate: bool = False,
    floor: float = FLOOR,
) -> Validation:
    """Predict `workload` under `plan` and compare it with the measurement.

    again: the same plan measured a second time. calibrate: fit the host on half of the steps. floor: of the gates.
    Raises InputError for a measurement of other requests, InfeasibleError where the plan's model does not fit.
    """
    execution = measurement.execution
    check_run_times(workload, workload.source or measurement.source)
    aligned = check_aligned(measurement, workload)
    if again is not None:
        check_again(measurement, again, workload)
    priced = price_plan(plan, workload, execution.layers if execution else 0)
    prediction = predict(priced, workload)
    if not prediction.metrics["completed"]:
        raise InputError("the plan", "refuses every request of the workload", "is it the plan that was measured?")
    found = Validation(
        plan=plan,
        tool=measurement.tool,
        source=measurement.source,
        metrics=metric_rows(measurement, prediction, again),
        predicted=prediction.result,
        measured=measurement.result,
        aligned=aligned,
        cpus=_cpus(priced),
        notes=(*measurement.notes, *_refusals(measurement, prediction)),
    )
    if execution is not None:
        found = _with_steps(found, priced, prediction, execution, again, calibrate)
    elif calibrate:
        rule = f"needs steps, and {measurement.tool} records none"
        raise InputError("--calibrate", rule, "give an execution's folder")
    return _gated(found, floor, recorded=execution is not None)


def _gated(found: Validation, floor: float, *, recorded: bool) -> Validation:
    """With its gates; recorded: whether the schedule is known."""
    schedule = found.divergence if recorded else None
    return replace(found, gates=gates(found.metrics, found.overall, schedule=schedule, floor=floor))


def _with_steps(
    found: Validation,
    priced: Priced,
    prediction: Prediction,
    execution: Execution,
    again: Measurement | None,
    calibrate: bool,
) -> Validation:
    """Steps, their errors, the attribution and the host's fit."""
    steps, replayed = compare_steps(priced, execution, again.execution if again else None)
    if not np.isfinite(steps.priced_s).all():  # a replay with fewer steps: nothing can be said of single ones
        return replace(found, divergence=replayed.divergence)
    hidden = all(engine.tables.host_overlapped for engine in priced.engines)
    serial = all(pool.parallel.pp == 1 for pool in priced.pools)
    held = hold(execution, request_latency_s(priced.engines))
    parts = parts_of(steps, hidden)
    return replace(
        found,
        steps=steps,
        overall=errors_of("all steps", steps, np.ones(len(steps.measured_s), bool)),
        groups=errors_by_composition(steps),
        divergence=replayed.divergence,
        attribution=attribute(held, steps, parts, execution.result, prediction.result, serial=serial),
        host_fit=fit_host(steps, priced.host, hidden=hidden, between_s=_between(held, serial)) if calibrate else None,
        environment=execution.environment,
    )


def _cpus(priced: Priced) -> tuple[str, ...]:
    """Names, as a plan may have them, of the devices that are CPU processes."""
    cpus = [one.device for one in priced.hardware.values() if one.device.kind == "cpu"]
    return tuple(name for device in cpus for name in (device.name, *device.aliases))


def _refusals(measurement: Measurement, prediction: Prediction) -> tuple[str, ...]:
    """A remark where the prediction completes more or fewer requests than were measured."""
    measured, ours = (int(one.get("completed", 0)) for one in (measurement.metrics, prediction.metrics))
    if measured == ours or (measurement.result is None and not measured):
        return ()
    return (f"{measured:,} requests were completed when measured and {ours:,} in the prediction",)


def _between(held: HeldSchedule, serial: bool) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Idle before each step that no arrival explains."""
    return held.lag_s if serial else np.zeros_like(held.lag_s)


def plan_for(measurement: Measurement, given: Plan | None) -> Plan:
    """The plan to predict: of an execution the one it ran, priced as the given one says (profiles, library).

    Raises InputError where the given plan has another model, or devices that the measured one did not have.
    """
    execution = measurement.execution
    if execution is None:
        if given is None:
            rule = f"{measurement.tool} does not say which plan it measured"
            raise InputError(measurement.source, rule, "give a plan file, or --model and --devices")
        return given
    ran = execution.plan
    if given is None:
        return ran
    _same(measurement.source, "model", _model(ran), _model(given))
    _same(measurement.source, "device", [pool.device for pool in ran.pools], [pool.device for pool in given.pools])
    _same(measurement.source, "parallel degrees", *([p.parallel for p in one.pools] for one in (ran, given)))
    _same(measurement.source, "replicas", *([p.replicas for p in one.pools] for one in (ran, given)))
    _same(measurement.source, "router", ran.router, given.router)
    _same(measurement.source, "weight dtype", ran.weight_dtype, given.weight_dtype)
    _same(
        measurement.source, "scheduler and KV policy", *([_knobs(pool) for pool in one.pools] for one in (ran, given))
    )
    return replace(ran, profiles=given.profiles, kernel_library=given.kernel_library)


def _knobs(pool: Pool) -> tuple[Scheduler, KvPolicy]:
    """What is decided of a pool's scheduling, but for what an executor changes and tells."""
    scheduler = replace(pool.scheduler, async_scheduling=False, cuda_graphs=False)
    return scheduler, replace(pool.kv, num_gpu_blocks=0)


def _same(source: str, what: str, ran: object, given: object) -> None:
    if ran != given:
        raise InputError(
            source, f"ran another {what}: {ran}, and the plan says {given}", "give the plan that was measured"
        )


def _model(plan: Plan) -> str:
    """A model's name without the way to its file."""
    return plan.model.removesuffix("/config.json").rstrip("/").rsplit("/", 1)[-1]


def names_of(paths: Sequence[object]) -> tuple[str, ...]:
    """Plans as they are told apart: the shortest ends of their paths that differ."""
    parts = [str(path).split("/") for path in paths]
    for length in range(1, max(len(part) for part in parts) + 1):
        names = tuple("/".join(part[-length:]) for part in parts)
        if len(set(names)) == len(names):
            return names
    return tuple(f"{number}: {path}" for number, path in enumerate(paths, 1))
