"""`simtool experts rebalance`: loads over time, and when a new placement pays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simtool.cli_experts import (
    Gpus,
    Groups,
    Limit,
    Nodes,
    Present,
    Replicas,
    Slack,
    Where,
    asked_problem,
    check_effort,
    read_pairs,
)
from simtool.cli_options import Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from simtool.planners.experts.rebalance import Window
    from simtool.planners.experts.rebalance_study import RebalanceStudy

_VLLM_INTERVAL = 3000  # vLLM's --eplb-config step_interval
_MOST_STEPS = 10**12

Loads = Annotated[
    str,
    typer.Argument(
        help="CSV with columns window, layer, expert and count; a routing trace (.npz, .jsonl); or a routing source: "
        "dirichlet:0.3,drift=0.001 (needs --model)."
    ),
]
ExpertsMs = Annotated[
    float,
    typer.Option(
        "--experts-ms",
        help="Milliseconds of a step that the experts of all layers take when no GPU has more than others.",
    ),
]
Model = Annotated[str, typer.Option("--model", help="Whose experts a routing source has.")]
Tokens = Annotated[int, typer.Option("--tokens", help="Tokens to sample of a source.", min=1, max=10_000_000)]
Batch = Annotated[int, typer.Option("--batch", help="Requests of a source's steps.", min=1, max=1_000_000)]
Seed = Annotated[int, typer.Option("--seed", help="Of the sampling.", min=0)]
Windows = Annotated[int, typer.Option("--windows", help="Windows that a trace or source is cut into.")]
Steps = Annotated[
    int,
    typer.Option(
        "--window-steps",
        help="Steps that each window stands for \\[a trace's own; of a CSV 3000, vLLM's step_interval].",
        show_default=False,
    ),
]
ExpertBytes = Annotated[float, typer.Option("--expert-bytes", help="Bytes of one expert in one layer.")]
Near = Annotated[str, typer.Option("--link", help="Link inside a node, a catalogue name.")]
Far = Annotated[str, typer.Option("--inter-link", help="Link between nodes, of one GPU.")]
Page = Annotated[Path | None, typer.Option("--page", help="Write a page with loads and moves over time here (HTML).")]


def rebalance(
    loads: Loads,
    gpus: Gpus,
    experts_ms: ExpertsMs,
    expert_bytes: ExpertBytes,
    nodes: Nodes = 1,
    replicas: Replicas = 0,
    groups: Groups = 1,
    where: Where = None,
    present: Present = None,
    model: Model = "",
    tokens: Tokens = 100_000,
    batch: Batch = 64,
    seed: Seed = 0,
    windows: Windows = 8,
    window_steps: Steps = 0,
    link: Near = "nvlink4",
    inter_link: Far = "ndr",
    load_slack: Slack = 0.01,
    effort: Limit = 0.2,
    page: Page = None,
    json: Json = False,
) -> int:
    """When a new placement of experts pays: bytes over links against time won in every step.

    Example: simtool experts rebalance loads.csv --gpus 8 --replicas 72 --experts-ms 4 --expert-bytes 88e6
    """
    from simtool.files import check_output_file
    from simtool.hardware.links import load_link

    check_effort(effort)
    if page is not None:
        check_output_file(page)
    links = (load_link(link), load_link(inter_link))
    found, numbers, layers = _windows(loads, where, (model, tokens, batch, seed), windows, window_steps)
    problem = asked_problem(found[0].loads, (gpus, nodes, replicas, groups), present, expert_bytes, load_slack)
    study = _studied(problem, found, links, experts_ms / 1e3, effort)
    if page is not None:
        from simtool.report.rebalance_page import write_rebalance_page

        write_rebalance_page(study, numbers, layers, page)
    _print(study, numbers, json)
    return 0


def _windows(
    text: str, where: list[str] | None, asked: tuple[str, int, int, int], windows: int, window_steps: int
) -> tuple[list[Window], tuple[int, ...], tuple[int, ...]]:
    """(windows, their numbers, the layers' numbers)."""
    from simtool.errors import InputError
    from simtool.expert_loads import read_load_windows
    from simtool.models.config import load_architecture
    from simtool.models.routing.observed import window_loads
    from simtool.models.routing.shape import moe_shape
    from simtool.models.routing.trace_text import asked_trace

    if not 0 <= window_steps <= _MOST_STEPS:
        raise InputError(f"--window-steps {window_steps}", f"must be from 1 to {_MOST_STEPS:,}")
    if text.endswith(".csv"):
        table = read_load_windows(Path(text), read_pairs(where or []))
        steps = window_steps or _VLLM_INTERVAL
        return _list(table.loads / steps, [steps] * len(table.loads)), table.windows, table.layers
    if where:
        raise InputError("--where", "chooses lines of a CSV file", "leave it out")
    model, tokens, batch, seed = asked
    shape = moe_shape(load_architecture(model)) if model else None
    trace = asked_trace(text, shape, tokens=tokens, batch=batch, seed=seed)
    loads, counted = window_loads(trace, windows)
    given = [window_steps] * windows if window_steps else counted.tolist()
    return _list(loads, given), tuple(range(windows)), trace.layers


def _list(loads: NDArray[np.float64], steps: list[int]) -> list[Window]:
    from simtool.planners.experts.rebalance import Window

    return [Window(loads=one, steps=float(count)) for one, count in zip(loads, steps, strict=True)]


def _studied(problem: Any, windows: list[Window], links: Any, balanced_s: float, effort: float) -> RebalanceStudy:
    from simtool.planners.experts.rebalance_study import study_rebalancing
    from simtool.planners.schedule.progress import Effort
    from simtool.terminal import progress

    with progress("placing experts") as say:
        return study_rebalancing(problem, windows, links, balanced_s, Effort(limit=effort, workers=2), progress=say)


def study_object(study: RebalanceStudy, numbers: tuple[int, ...]) -> dict[str, Any]:
    """The one object of `simtool experts rebalance --json`."""
    from simtool.json_text import plain

    rows = []
    for window, number in enumerate(numbers):
        seconds, steps = study.move_before(window)
        rows.append(
            {
                "window": number,
                "steps": study.windows[window].steps,
                "own_placement": study.own[window],
                "chosen_placement": study.best.chosen[window],
                "stay_over_mean": study.over_mean(window, 0),
                "own_over_mean": study.over_mean(window, study.own[window]),
                "chosen_over_mean": study.over_mean(window, study.best.chosen[window]),
                "move_s": seconds,
                "pays_after_steps": steps,
            }
        )
    placements = [held.reshape(len(held), -1).tolist() for held in study.placements]
    return {"schedules": plain(study.schedules), "windows": rows, "placements": placements}


def _print(study: RebalanceStudy, numbers: tuple[int, ...], json: bool) -> None:
    from simtool.report.rebalance_rows import CAVEAT, SCHEDULE_HEADS, WINDOW_HEADS, schedule_rows, verdict, window_rows
    from simtool.terminal import print_json, print_table, print_text

    if json:
        from simtool.json_text import json_text

        print_json(json_text(study_object(study, numbers)))
        return
    print_table(WINDOW_HEADS, window_rows(study, numbers))
    print_table(SCHEDULE_HEADS, schedule_rows(study))
    print_text(f"{verdict(study)}\n{CAVEAT}")
