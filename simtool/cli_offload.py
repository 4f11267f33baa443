"""`simtool offload`: experts in host memory, under one policy beside another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simtool.cli_options import Json

if TYPE_CHECKING:
    from simtool.offloading import OffloadQuestion, PolicyWalk
    from simtool.plan import ExpertOffload

app = typer.Typer(help="Experts in host memory: policies side by side.", no_args_is_help=True)

_POLICIES = ("on-demand", "lru", "lfu", "speculative", "predicted-path", "static-cpu", "static-cheaper")
_MOST_WALKS = 100

Model = Annotated[str, typer.Argument(help="A catalogue name (`simtool models`) or the path of a config.json.")]
Device = Annotated[str, typer.Option("--device", help="The one device, a catalogue name: a100-40g.")]
Routing = Annotated[
    str, typer.Option("--routing", help="A routing source or trace (docs/routing.md): mixtral-8x7b,locality=0.4.")
]
Policies = Annotated[
    list[str] | None,
    typer.Option("--policy", help="POLICY[,slots=N][,staging=N][,window=N][,recall=P]. Repeatable \\[all kinds]."),
]
Slots = Annotated[
    str,
    typer.Option(
        "--slots",
        help="Experts of a layer in HBM, for policies that name none; a comma list is a curve \\[a quarter].",
        show_default=False,
    ),
]
Batch = Annotated[int, typer.Option("--batch", help="Requests that decode together.", min=1, max=65_536)]
Context = Annotated[int, typer.Option("--context", help="Tokens that each has cached.", min=1)]
Steps = Annotated[int, typer.Option("--steps", help="Decode steps, from an empty cache.", min=1, max=1_000_000)]
Dtype = Annotated[str, typer.Option("--weight-dtype", help="As `simtool plan` takes it.")]
Library = Annotated[str, typer.Option("--kernel-library", help="vllm, sglang, trtllm or torch.")]
Seed = Annotated[int, typer.Option("--seed", help="Of routing and predictions.", min=0)]
Page = Annotated[Path | None, typer.Option("--page", help="Write a page with hits, stalls and speed here (HTML).")]


@app.command("walk")
def walk(
    model: Model,
    device: Device,
    routing: Routing = "uniform",
    policy: Policies = None,
    slots: Slots = "",
    batch: Batch = 1,
    context: Context = 1024,
    steps: Steps = 200,
    weight_dtype: Dtype = "auto",
    kernel_library: Library = "vllm",
    seed: Seed = 0,
    page: Page = None,
    json: Json = False,
) -> int:
    """Decode with experts in host memory under several policies: hits, waiting, link, tokens a second.

    Example: simtool offload walk mixtral-8x7b --device a100-40g --routing mixtral-8x7b,locality=0.4 --slots 2,4,6
    """
    from simtool.files import check_output_file
    from simtool.offloading import OffloadQuestion

    if page is not None:
        check_output_file(page)
    question = OffloadQuestion(
        model=model,
        device=device,
        routing=routing,
        batch=batch,
        context=context,
        steps=steps,
        weight_dtype=weight_dtype,
        kernel_library=kernel_library,
        seed=seed,
    )
    found = _walked(question, _offloads(model, policy or list(_POLICIES), slots))
    if page is not None:
        from simtool.report.offload_page import write_offload_page

        write_offload_page(question, found, page)
    _print(found, json)
    return 0


def _offloads(model: str, policies: list[str], slots: str) -> list[ExpertOffload]:
    """Every policy with every number of slots; one that names its own stands once."""
    from simtool.errors import InputError
    from simtool.models.config import load_architecture
    from simtool.models.routing.shape import moe_shape
    from simtool.offloading import default_slots
    from simtool.offloads import parse_offload

    texts = [text for text in slots.split(",") if text] or [str(default_slots(moe_shape(load_architecture(model))))]
    found = [
        parse_offload(policy if "slots=" in policy else f"{policy},slots={count.strip()}")
        for policy in policies
        for count in texts
    ]
    kept = [one for place, one in enumerate(found) if one not in found[:place] and not one.off]
    if not kept or len(kept) > _MOST_WALKS:
        raise InputError(
            f"{len(kept)} ways to offload", f"must be from 1 to {_MOST_WALKS}", "fewer --policy or --slots"
        )
    return kept


def _walked(question: OffloadQuestion, offloads: list[ExpertOffload]) -> tuple[PolicyWalk, ...]:
    from simtool.offloading import walk_policies
    from simtool.terminal import progress

    with progress("walking") as say:
        say(f"{len(offloads)} ways to offload")
        return walk_policies(question, offloads)


def walk_object(found: PolicyWalk) -> dict[str, Any]:
    """One object of `simtool offload walk --json`."""
    from simtool.json_text import plain
    from simtool.offload_use import STALL_CAUSES

    use = found.use
    return {
        "offload": plain(found.offload),
        "hbm_bytes": found.hbm_bytes,
        "weights_bytes": found.weights_bytes,
        "fits": found.fits,
        "output_throughput": found.tokens_per_s,
        "hit_rate": use.hit_rate,
        "most_hits": found.most_hits,
        "loads_per_token": found.loads_per_token,
        "stall_s": dict(zip(STALL_CAUSES, use.stall_s.sum(axis=0).tolist(), strict=True)),
        "link_share": use.link_share,
        "busy_s": use.busy_s,
    }


def _print(found: tuple[PolicyWalk, ...], json: bool) -> None:
    from simtool.report.offload_rows import OFFLOAD_CAVEAT, OFFLOAD_HEADS, offload_rows
    from simtool.terminal import print_json, print_table, print_text

    if json:
        from simtool.json_text import json_text

        print_json(json_text({"walks": [walk_object(one) for one in found]}))
        return
    print_table(OFFLOAD_HEADS, offload_rows(found))
    print_text(OFFLOAD_CAVEAT)
