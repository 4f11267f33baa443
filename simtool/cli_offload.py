"""`simtool offload`: experts in host memory, under one policy beside another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simtool.cli_options import Json

if TYPE_CHECKING:
    from simtool.offload_planning import OffloadPlanQuestion
    from simtool.offloading import OffloadQuestion, PolicyWalk
    from simtool.plan import ExpertOffload

app = typer.Typer(help="Experts in host memory: policies side by side.", no_args_is_help=True)

_POLICIES = ("on-demand", "lru", "lfu", "speculative", "predicted-path", "static-cpu", "static-cheaper")
_MOST_WALKS = 100
_MOST_ROWS = 12  # of plans
_CURVE = (0.25, 0.4, 0.55, 0.7, 0.85, 1.0)  # shares of the device's memory that a page draws

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
Batches = Annotated[str, typer.Option("--batch", help="Requests that decode together; a comma list to choose from.")]
Dtypes = Annotated[str, typer.Option("--weight-dtype", help="As `simtool plan` takes it; a comma list to choose from.")]
Ways = Annotated[
    list[str] | None,
    typer.Option("--policy", help="POLICY[,window=N][,recall=P], to choose from. Repeatable \\[all that are planned]."),
]
HostMemory = Annotated[
    float, typer.Option("--host-memory-gb", help="Host memory for experts \\[the usual server's].", show_default=False)
]
GpuMemory = Annotated[
    float, typer.Option("--hbm-gb", help="GPU memory that may be taken \\[all the device has].", show_default=False)
]
Target = Annotated[
    float, typer.Option("--target-tok-s", help="Find the least GPU memory for this speed.", show_default=False)
]
Latency = Annotated[float, typer.Option("--max-step-ms", help="Longest mean decode step \\[any].", show_default=False)]
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


@app.command("plan")
def plan(
    model: Model,
    device: Device,
    hbm_gb: GpuMemory = 0.0,
    host_memory_gb: HostMemory = 0.0,
    target_tok_s: Target = 0.0,
    max_step_ms: Latency = 0.0,
    weight_dtype: Dtypes = "auto",
    batch: Batches = "1",
    policy: Ways = None,
    routing: Routing = "uniform",
    context: Context = 1024,
    steps: Steps = 64,
    kernel_library: Library = "vllm",
    seed: Seed = 0,
    page: Page = None,
    json: Json = False,
) -> int:
    """Choose precision, batch, policy, prefetch and slots of each layer for the most speed, or the least GPU memory.

    Example: simtool offload plan mixtral-8x22b --device a100-80g --batch 1,4,16 --routing zipf:0.5,locality=0.3
    """
    from simtool.offload_planning import USUAL_WAYS, OffloadPlanQuestion
    from simtool.offloading import OffloadQuestion
    from simtool.offloads import parse_offload
    from simtool.units import GB

    _check_plan((hbm_gb, host_memory_gb, target_tok_s, max_step_ms), page)
    walked = OffloadQuestion(model=model, device=device, routing=routing, context=context, steps=steps, seed=seed)
    question = OffloadPlanQuestion(
        walked=replace(walked, kernel_library=kernel_library),
        weight_dtypes=tuple(dict.fromkeys(weight_dtype.split(","))),
        batches=_whole_numbers(batch),
        ways=tuple(parse_offload(text) for text in policy) if policy else USUAL_WAYS,
        hbm_bytes=hbm_gb * GB,
        host_bytes=host_memory_gb * GB,
        max_step_s=max_step_ms / 1e3,
    )
    if target_tok_s:
        _print_least(question, target_tok_s, json)
    else:
        _print_fastest(question, page, json)
    return 0


def _check_plan(numbers: tuple[float, float, float, float], page: Path | None) -> None:
    from simtool.errors import InputError
    from simtool.files import check_output_file

    if not all(0 <= number < 1e9 for number in numbers):
        raise InputError("--hbm-gb, --host-memory-gb, --target-tok-s, --max-step-ms", "must be at least 0, and finite")
    if page is not None:
        if numbers[2]:
            raise InputError("--page", "is of the fastest configuration", "no --target-tok-s")
        check_output_file(page)


def _whole_numbers(text: str) -> tuple[int, ...]:
    from simtool.errors import InputError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) <= 6 for part in parts):
        raise InputError(f"--batch {text}", "must be whole numbers", "1,4,16")
    return tuple(int(part) for part in parts)


def _print_fastest(question: OffloadPlanQuestion, page: Path | None, json: bool) -> None:
    from simtool.offload_planning import plan_curve
    from simtool.report.offload_plan_rows import PLAN_CAVEAT, TRIAL_HEADS, fastest_words, plan_object, trial_rows
    from simtool.terminal import print_json, print_table, print_text, progress

    _announce()
    with progress("planning") as say:
        *curve, found = plan_curve(question, _CURVE if page is not None else (1.0,), say)
    if page is not None:
        from simtool.report.offload_plan_page import write_offload_plan_page

        write_offload_plan_page(question, found, curve, page)
    if json:
        from simtool.json_text import json_text

        print_json(json_text(plan_object(found)))
        return
    print_table(TRIAL_HEADS, trial_rows(found.trials[:_MOST_ROWS]))
    print_text(f"{fastest_words(found)}\n{PLAN_CAVEAT}")


def _print_least(question: OffloadPlanQuestion, target_tok_s: float, json: bool) -> None:
    from simtool.offload_planning import plan_memory
    from simtool.report.offload_plan_rows import PLAN_CAVEAT, TRIAL_HEADS, least_words, memory_object, trial_rows
    from simtool.terminal import print_json, print_table, print_text, progress

    _announce()
    with progress("planning") as say:
        found = plan_memory(question, target_tok_s, say)
    if json:
        from simtool.json_text import json_text

        print_json(json_text(memory_object(found)))
        return
    print_table(TRIAL_HEADS, trial_rows((found.best,)))
    print_text(f"{least_words(found, target_tok_s)}\n{PLAN_CAVEAT}")


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


def _announce() -> None:
    from simtool.cli_compile import announce_compilation

    announce_compilation(replica=False, offload=True)


def _walked(question: OffloadQuestion, offloads: list[ExpertOffload]) -> tuple[PolicyWalk, ...]:
    from simtool.offloading import walk_policies
    from simtool.terminal import progress

    _announce()
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
