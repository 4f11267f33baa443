"""`simtool experts`: experts of a mixture-of-experts model on GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simtool.cli_options import Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from simtool.planners.experts.plan import ExpertPlan
    from simtool.planners.experts.problem import ExpertProblem

app = typer.Typer(help="Experts of a mixture-of-experts model: where to hold them.", no_args_is_help=True)

Loads = Annotated[Path, typer.Argument(help="CSV: a line of loads a layer, or columns layer, expert, count.")]
Where = Annotated[list[str] | None, typer.Option("--where", help="COLUMN=VALUE: only such lines. Repeatable.")]
Gpus = Annotated[int, typer.Option("--gpus", help="GPUs of the expert-parallel group.")]
Nodes = Annotated[int, typer.Option("--nodes", help="Nodes that they are spread over evenly.")]
Replicas = Annotated[
    int, typer.Option("--replicas", help="Slots of all GPUs \\[experts, up to a multiple of GPUs].", show_default=False)
]
Groups = Annotated[
    int, typer.Option("--groups", help="Expert groups that stay whole on a node \\[1: global].", show_default=False)
]
Present = Annotated[Path | None, typer.Option("--present", help="The present placement (JSON): then moves count.")]
ExpertBytes = Annotated[float, typer.Option("--expert-bytes", help="Bytes of one expert, for moves.")]
Slack = Annotated[float, typer.Option("--load-slack", help="Share of load given up for fewer moves.")]
Limit = Annotated[float, typer.Option("--effort", help="Deterministic solver seconds a layer.")]
AllLayers = Annotated[int, typer.Option("--all-layers", help="The model's layers, for a row of each in the file.")]
Out = Annotated[Path | None, typer.Option("--out", help="Write the placement here (SGLang's --init-expert-location).")]
Page = Annotated[Path | None, typer.Option("--page", help="Write a page with loads before and after here (HTML).")]


_MOST_LAYERS = 10_000


@app.command("place")
def place(
    loads: Loads,
    gpus: Gpus,
    nodes: Nodes = 1,
    replicas: Replicas = 0,
    groups: Groups = 1,
    where: Where = None,
    present: Present = None,
    expert_bytes: ExpertBytes = 1.0,
    load_slack: Slack = 0.0,
    effort: Limit = 2.0,
    all_layers: AllLayers = 0,
    out: Out = None,
    page: Page = None,
    json: Json = False,
) -> int:
    """How often each expert is held and by which GPU, so that the fullest GPU has the least load.

    Example: simtool experts place loads.csv --gpus 8 --nodes 2 --replicas 16 --groups 4
    """
    from simtool.expert_loads import read_expert_loads

    _check(effort, all_layers, out, page)
    table = read_expert_loads(loads, read_pairs(where or []))
    problem = asked_problem(table.loads, (gpus, nodes, replicas, groups), present, expert_bytes, load_slack)
    plan = _placed(problem, effort)
    _write(plan, table.layers, all_layers, out, page)
    _print(plan, table.layers, json)
    return 0


def _check(effort: float, all_layers: int, out: Path | None, page: Path | None) -> None:
    """What would be found out after the search."""
    from simtool.errors import InputError
    from simtool.files import check_output_file

    check_effort(effort)
    if not 0 <= all_layers <= _MOST_LAYERS:
        raise InputError(f"--all-layers {all_layers}", f"must be from 0 to {_MOST_LAYERS:,}", "the model's layers")
    if out is not None and page is not None and out.resolve() == page.resolve():
        raise InputError(f"--page {page}", "is the file of the placement", "give two files")
    for path in (out, page):
        if path is not None:
            check_output_file(path)


def asked_problem(
    loads: NDArray[np.float64],
    counts: tuple[int, int, int, int],
    present: Path | None,
    expert_bytes: float,
    load_slack: float,
) -> ExpertProblem:
    """The problem that the flags state; counts: GPUs, nodes, replicas, groups."""
    from simtool.planners.experts.problem import ExpertProblem

    gpus, nodes, replicas, groups = counts
    return ExpertProblem(
        loads=loads,
        gpus=gpus,
        slots=_slots(replicas, gpus, loads.shape[1]),
        nodes=nodes,
        groups=groups,
        hierarchical=groups > 1,
        present=_present(present),
        expert_bytes=expert_bytes,
        load_slack=load_slack,
    )


def check_effort(effort: float) -> None:
    """Raise InputError for seconds that no solver can have."""
    from simtool.errors import InputError

    if not 0 < effort < float("inf"):
        raise InputError(f"--effort {effort:g}", "must be a number of seconds above 0", "--effort 2")


def _placed(problem: ExpertProblem, limit: float) -> ExpertPlan:
    from simtool.planners.experts.plan import place_experts
    from simtool.planners.schedule.progress import Effort
    from simtool.terminal import progress

    with progress("placing experts") as say:
        return place_experts(problem, Effort(limit=limit, workers=2), progress=say)


def plan_object(plan: ExpertPlan, layers: tuple[int, ...]) -> dict[str, Any]:
    """The one object of `simtool experts place --json`."""
    return {
        "physical_to_logical_map": plan.phy2log,
        "gap": plan.gap,
        "layers": [
            {
                "layer": number,
                "greedy_load": one.greedy_measures.highest_load,
                "present_load": one.now.highest_load if one.now else None,
                "load": one.load,
                "crossing_load": one.crossing,
                "moved_bytes": one.moved,
            }
            for number, one in zip(layers, plan.layers, strict=True)
        ],
    }


def read_pairs(texts: list[str]) -> dict[str, str]:
    """COLUMN=VALUE words as a mapping. Raises InputError."""
    from simtool.errors import InputError

    for text in texts:
        if "=" not in text:
            raise InputError(f"--where {text}", "is not COLUMN=VALUE", "--where domain=c4")
    return {name.strip(): value.strip() for name, _, value in (text.partition("=") for text in texts)}


def _present(path: Path | None) -> Any:
    """The placement in the file, [layers, slots]; None without a file. Raises InputError."""
    from simtool.expert_location import read_expert_location

    return None if path is None else read_expert_location(path)


def _slots(replicas: int, gpus: int, experts: int) -> int:
    """Slots of one GPU; replicas 0: what the experts need. Raises InputError."""
    from simtool.errors import InputError

    if gpus < 1:
        raise InputError(f"--gpus {gpus}", "must be 1 or more")
    if replicas % gpus:
        raise InputError(f"--replicas {replicas}", f"do not fill {gpus} GPUs evenly", "a multiple of the GPUs")
    return replicas // gpus or -(-experts // gpus)


def _write(plan: ExpertPlan, layers: tuple[int, ...], all_layers: int, out: Path | None, page: Path | None) -> None:
    from simtool.expert_location import with_other_layers, write_expert_location

    if out is not None:
        whole = with_other_layers(plan.phy2log, layers, plan.problem.experts, all_layers or layers[-1] + 1)
        write_expert_location(whole if all_layers else plan.phy2log, out)
    if page is not None:
        from simtool.report.expert_page import write_expert_page

        write_expert_page(plan, layers, page)


def _print(plan: ExpertPlan, layers: tuple[int, ...], json: bool) -> None:
    from simtool.terminal import print_json, print_text

    if json:
        from simtool.json_text import json_text

        print_json(json_text(plan_object(plan, layers)))
        return
    from simtool.report.wording import number

    _print_layers(plan, layers)
    greedy = sum(one.greedy_measures.highest_load for one in plan.layers)
    planned = sum(one.load.objective for one in plan.layers)
    print_text(
        f"load of the fullest GPU, summed over layers: {number(planned, 5)}, greedy {number(greedy, 5)} "
        f"({100 * (1 - planned / greedy):.2f}% less); within {100 * plan.gap:.2f}% of the best there is\n"
        "an expert's load is split equally over its replicas; loads are expected ones, a step's own differ"
    )


def _print_layers(plan: ExpertPlan, layers: tuple[int, ...]) -> None:
    from simtool.report.wording import number
    from simtool.terminal import print_table

    means = plan.problem.loads.sum(axis=1) / plan.problem.gpus
    moves = plan.problem.present is not None
    heads = ("layer", "mean GPU", *(("present",) if moves else ()), "greedy", "planned", "bound", "gap", "mean/planned")
    rows = []
    for layer, mean, one in zip(layers, means.tolist(), plan.layers, strict=True):
        now = [number(one.now.highest_load, 4) if one.now else "–"] if moves else []
        cells = [number(value, 4) for value in (one.greedy_measures.highest_load, one.load.objective, one.load.bound)]
        shares = [f"{100 * one.load.gap:.2f}%", f"{mean / one.load.objective:.4f}"]
        rows.append(
            [str(layer), number(mean, 4), *now, *cells, *shares, *([f"{one.moved.objective:.3g}"] if moves else [])]
        )
    print_table((*heads, *(("moved bytes",) if moves else ())), rows)
