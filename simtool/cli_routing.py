"""`simtool routing`: inspect and sample traces of expert choices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simtool.cli_options import Json

if TYPE_CHECKING:
    from simtool.models.routing.trace import RoutingTrace

app = typer.Typer(help="Inspect and sample traces of expert choices.", no_args_is_help=True)

_MOST = 10_000_000  # tokens, requests

Source = Annotated[
    str,
    typer.Argument(
        help="A trace (.npz, .jsonl), or a source: uniform, zipf:1.2, dirichlet:0.3,drift=0.01, mixtral-8x7b, "
        "olmoe-1b-7b/c4; each with ,locality=0.4 or ,classes=8,affinity=1.",
    ),
]
Model = Annotated[str, typer.Option("--model", help="Whose experts: a catalogue name or config.json.")]
Tokens = Annotated[int, typer.Option("--tokens", help="Tokens to sample; a file has its own.", min=1, max=_MOST)]
Batch = Annotated[int, typer.Option("--batch", help="Requests that decode together.", min=1, max=_MOST)]
Ranks = Annotated[int, typer.Option("--ep", help="Expert-parallel ranks.", min=1)]
Seed = Annotated[int, typer.Option("--seed", help="Of the sampling.", min=0)]
Prompt = Annotated[int, typer.Option("--prompt-tokens", help="Prompt tokens of each request.", min=0, max=_MOST)]

_MEASURES = {
    "unique_experts": "experts that a batch needs",
    "max_expert_tokens": "tokens of its busiest expert",
    "max_rank_assignments": "assignments of its busiest rank",
    "rank_imbalance": "busiest rank over the mean",
    "reused_from_token_before": "experts that the token before had",
    "known_from_layer_before": "known from the layer before, 0..1",
}


@app.command("inspect")
def inspect(
    source: Source,
    model: Model = "",
    tokens: Tokens = 10_000,
    batch: Batch = 16,
    ep: Ranks = 1,
    seed: Seed = 0,
    json: Json = False,
) -> int:
    """What a batch needs of the experts: how many, how unevenly, how predictably.

    Example: simtool routing inspect zipf:1.0 --model qwen3-30b-a3b --batch 32 --ep 8
    """
    from simtool.models.routing.inspection import inspect_routing
    from simtool.terminal import print_json

    facts = inspect_routing(_trace(source, model, tokens, batch, 0, seed), batch=batch, ranks=ep)
    if json:
        from simtool.json_text import json_text

        print_json(json_text(facts))
    else:
        _print(facts)
    return 0


@app.command("sample")
def sample(
    source: Source,
    target: Annotated[Path, typer.Argument(help="The trace to write: .npz or .jsonl.")],
    model: Model = "",
    tokens: Tokens = 10_000,
    batch: Batch = 16,
    prompt_tokens: Prompt = 0,
    seed: Seed = 0,
) -> int:
    """Write a trace of a source, or rewrite a trace in the other format. --tokens counts those that are decoded."""
    from simtool.models.routing.trace_file import check_routing_path, write_routing
    from simtool.terminal import note

    check_routing_path(target)
    trace = _trace(source, model, tokens, batch, prompt_tokens, seed)
    write_routing(trace, target)
    note(f"{trace.tokens:,} tokens x {len(trace.layers)} layers x {trace.top_k} experts written to {target}")
    return 0


def _trace(source: str, model: str, tokens: int, batch: int, prompt_tokens: int, seed: int) -> RoutingTrace:
    """As `asked_trace`, of the model's experts where one is named."""
    from simtool.models.config import load_architecture
    from simtool.models.routing.shape import moe_shape
    from simtool.models.routing.trace_text import asked_trace

    shape = moe_shape(load_architecture(model)) if model else None
    return asked_trace(source, shape, tokens=tokens, batch=batch, prompt_tokens=prompt_tokens, seed=seed)


def _print(facts: dict[str, Any]) -> None:
    from simtool.report.wording import number
    from simtool.terminal import print_table, print_text

    print_text(
        f"{facts['source']}: {facts['tokens']:,} tokens of {facts['requests']:,} requests, {facts['layers']} layers of "
        f"{facts['experts']} experts, {facts['top_k']} a token; {facts['batches']:,} batches of {facts['batch']}"
        + (f", {facts['ranks']} expert-parallel ranks" if facts["ranks"] > 1 else "")
    )
    columns = ("mean", "least", "most", "independent")
    rows = [[_MEASURES[name], *(number(row[column]) for column in columns)] for name, row in facts["measures"].items()]
    print_table(("over layers", "mean", "least layer", "most layer", "independent tokens"), rows)
    hot = [
        [
            str(layer["layer"]),
            "  ".join(f"{e} ({100 * s:.0f}%)" for e, s in zip(layer["experts"], layer["token_share"], strict=True)),
        ]
        for layer in facts["hottest"]
    ]
    print_table(("layer", "hottest experts (share of tokens)"), hot, left=2)
