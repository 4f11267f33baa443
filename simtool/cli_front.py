"""`simtool plan --pareto A,B` and `simtool plan --capacity`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simtool.planners.capacity import Capacity
    from simtool.planners.pareto import ParetoFront, ParetoPoint
    from simtool.planners.question import Answer
    from simtool.scenario import Scenario


def front(asked: Scenario, pair: str, json: bool) -> int:
    """The plans that no other beats in two objectives at once."""
    from simtool.asking import question_of
    from simtool.errors import InputError
    from simtool.explaining import unused_profiles
    from simtool.planners.objective import OBJECTIVES
    from simtool.planners.pareto import pareto
    from simtool.terminal import note, print_json, progress

    names = [name.strip() for name in pair.split(",")]
    known = [objective for name in names for objective in OBJECTIVES if objective == name]
    if len(names) != 2 or len(known) != 2:
        raise InputError(f"--pareto {pair}", "is not two objectives", f"A,B out of {', '.join(OBJECTIVES)}")
    question = question_of(asked)
    with progress("searching") as say:
        found = pareto(question, known[0], known[1], progress=say)
    if json:
        from simtool.json_text import json_text

        print_json(json_text(front_object(found)))
    else:
        _print_front(found)
    for line in unused_profiles(found.front[0].candidate.plan):
        note(line)
    return 0


def front_object(found: ParetoFront) -> dict[str, Any]:
    """The one object of `simtool plan --pareto --json`."""
    simulated = sum(point.candidate.status != "pruned" for point in found.others) + len(found.front)
    return {
        "objectives": [found.objective_a, found.objective_b],
        "front": [_point_object(point, found) for point in found.front],
        "legal": len(found.front) + len(found.others),
        "simulated": simulated,
        "pruned": len(found.front) + len(found.others) - simulated,
        "gap": 0.0,
    }


def _point_object(point: ParetoPoint, found: ParetoFront) -> dict[str, Any]:
    from simtool.plan_file import plan_dict

    values = {found.objective_a: point.a, found.objective_b: point.b}
    return {"plan": plan_dict(point.candidate.plan), "objectives": values, "metrics": point.candidate.metrics}


def _print_front(found: ParetoFront) -> None:
    from simtool.report.wording import OBJECTIVES, number, plan_short
    from simtool.terminal import print_table, print_text

    units = [OBJECTIVES[objective][1] for objective in (found.objective_a, found.objective_b)]
    heads = ("plan", "GPUs", "batched tokens", *units, "mean TTFT ms", "mean TPOT ms")
    rows = []
    for point in found.front:
        plan, metrics = point.candidate.plan, point.candidate.metrics or {}
        budgets = sorted({pool.scheduler.max_num_batched_tokens for pool in plan.pools})
        latencies = [number(metrics.get(f"mean_{name}_ms", float("nan")), 4) for name in ("ttft", "tpot")]
        values = [number(value, 4) for value in (point.a, point.b)]
        text = ", ".join(f"{budget:,}" for budget in budgets)
        rows.append([plan_short(plan), str(plan.devices), text, *values, *latencies])
    print_table(heads, rows)
    facts = front_object(found)
    print_text(
        f"{len(rows)} plans on the front of {facts['legal']:,} legal ones: {facts['simulated']:,} simulated, "
        f"{facts['pruned']:,} pruned, every one beaten in both objectives."
    )


def capacity(asked: Scenario, answer: Answer, json: bool) -> int:
    """The highest request rate at which the best plan still meets the SLO."""
    from simtool.asking import slo_of
    from simtool.planners.capacity import capacity as find
    from simtool.planners.real import open_backend
    from simtool.terminal import print_json, print_text, progress

    question = answer.question
    with progress("raising the load"):
        found = find(answer.best.plan, question.workload, slo_of(asked), backend=open_backend(question))
    if json:
        from simtool.json_text import json_text
        from simtool.outputs import answer_object

        print_json(json_text({**answer_object(answer), "capacity": capacity_object(found)}))
        return 0
    from simtool.report.wording import number, plan_phrase

    phrase = plan_phrase(answer.best.plan)
    if found.missed_rate == float("inf"):
        print_text(f"{phrase} meets the SLO even when all {question.workload.num_requests:,} requests come at once.")
    else:
        met, missed = number(found.met_rate, 4), number(found.missed_rate, 4)
        print_text(f"{phrase} meets the SLO at {met} requests/s and misses it at {missed}.")
    return 0


def capacity_object(found: Capacity) -> dict[str, Any]:
    """The capacity as JSON-ready values: requests/s met and missed, and every load that was simulated."""
    points = [{"load": point.load, "attainment": point.attainment} for point in found.points]
    return {"met_request_rate": found.met_rate, "missed_request_rate": found.missed_rate, "points": points}
