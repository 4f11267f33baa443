"""What the planner of expert offload found, as rows of text, for the terminal and the page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from simtool.json_text import plain
from simtool.offloads import offload_text
from simtool.planners.offload.fastest import FastestOffload, WayBound
from simtool.planners.offload.least import LeastMemory
from simtool.planners.offload.trial import Choice, Trial
from simtool.report.wording import number
from simtool.units import GB

TRIAL_HEADS = (
    "dtype", "batch", "policy", "slots", "staged", "GPU GB", "tok/s", "step ms", "hits", "loads", "CPU",
)  # fmt: skip
BOUND_HEADS = ("dtype", "batch", "policy", "tok/s ≤", "step ms ≥", "binds")
PLAN_CAVEAT = (
    "slots: experts of a layer in HBM; staged: places of all layers for those on the way; loads, CPU: experts a token\n"
    "GPU GB: device memory that the engine needs (weights, KV cache, activations, graphs, experts; a tenth to spare)\n"
    "tok/s: simulated, decode only, the most used experts in HBM at the start; the bound holds for the same routing"
)


def trial_rows(trials: tuple[Trial, ...]) -> list[list[str]]:
    """A row a walk under TRIAL_HEADS."""
    return [
        [
            one.choice.weight_dtype,
            str(one.choice.batch),
            way_text(one.choice),
            slots_text(one.choice),
            str(one.choice.staging),
            f"{one.device_bytes / GB:.1f}",
            number(one.tokens_per_s),
            number(1e3 * one.step_s),
            f"{100 * one.hit_rate:.1f}%",
            number(one.loads_per_token),
            number(one.cpu_per_token),
        ]
        for one in trials
    ]


def bound_rows(bounds: tuple[WayBound, ...]) -> list[list[str]]:
    """A row a case and policy under BOUND_HEADS."""
    return [
        [one.weight_dtype, str(one.batch), one.policy, number(one.tokens_per_s), number(1e3 * one.step_s), one.binds]
        for one in bounds
    ]


def way_text(choice: Choice) -> str:
    """The policy, its window and recall."""
    return offload_text(replace(choice.way, slots=0, staging=0))


def slots_text(choice: Choice) -> str:
    """Fewest and most slots of a layer; of predicted-path, which shares them, all together."""
    low, high = min(choice.slots), max(choice.slots)
    if choice.way.policy == "predicted-path":
        return f"{sum(choice.slots):,} shared"
    return str(low) if low == high else f"{low}–{high}"


def fastest_words(found: FastestOffload) -> str:
    """The answer in two lines: what, and how far from the bound."""
    first, best = found.bounds[0], found.best
    words = (
        f"fastest: {way_text(best.choice)}, weights {best.choice.weight_dtype}, batch {best.choice.batch}: "
        f"{number(best.tokens_per_s)} tok/s\n"
        f"no configuration passes {number(found.bound_tokens_per_s)} tok/s (the {first.binds} binds, {first.policy}): "
        f"gap {100 * found.gap:.1f}%"
    )
    if found.split is None:
        return words
    proof = found.split.certificate
    return f"{words}\nslots over layers: {proof.status.lower()}, gap {100 * proof.gap:.2g}% of {proof.scope}"


def least_words(found: LeastMemory, target_tok_s: float) -> str:
    """The answer in one line."""
    return (
        f"{number(target_tok_s)} tok/s with {found.best.device_bytes / GB:.1f} GB of GPU memory; not with less than "
        f"{found.bound_bytes / GB:.1f} GB: gap {100 * found.gap:.1f}%"
    )


def plan_object(found: FastestOffload) -> dict[str, Any]:
    """`simtool offload plan --json`."""
    return {
        "best": trial_object(found.best),
        "bound_output_throughput": found.bound_tokens_per_s,
        "gap": found.gap,
        "split": None if found.split is None else plain(found.split.certificate),
        "bounds": plain(found.bounds),
        "trials": [trial_object(one) for one in found.trials],
    }


def memory_object(found: LeastMemory) -> dict[str, Any]:
    """`simtool offload plan --target-tok-s --json`."""
    return {"best": trial_object(found.best), "bound_device_bytes": found.bound_bytes, "gap": found.gap}


def trial_object(one: Trial) -> dict[str, Any]:
    """A walk; slots by layer."""
    return {
        "weight_dtype": one.choice.weight_dtype,
        "batch": one.choice.batch,
        "offload": plain(replace(one.choice.way, staging=one.choice.staging)),
        "slots": list(one.choice.slots),
        "output_throughput": one.tokens_per_s,
        "step_s": one.step_s,
        "hit_rate": one.hit_rate,
        "loads_per_token": one.loads_per_token,
        "cpu_per_token": one.cpu_per_token,
        "experts_bytes": one.experts_bytes,
        "device_bytes": one.device_bytes,
    }
