"""Numbers and plans as words."""

from __future__ import annotations

import math
import re
from collections.abc import Collection

from simtool.offload_use import OffloadUse
from simtool.offloads import offload_text
from simtool.overlaps import overlap_name
from simtool.plan import Plan, Pool
from simtool.planners.question import Objective

# objective -> (what it is called, its unit)
OBJECTIVES: dict[Objective, tuple[str, str]] = {
    "throughput-per-gpu": ("throughput per GPU", "output tok/s/GPU"),
    "goodput-per-gpu": ("goodput per GPU", "good requests/s/GPU"),
    "throughput-per-dollar": ("throughput per dollar", "output tok/$"),
    "latency": ("mean end-to-end latency", "s"),
    "ttft": ("mean time to first token", "s"),
    "tpot": ("mean time per output token", "s"),
    "gpus": ("GPUs used", "GPUs"),
    "cost-per-token": ("cost", "$ per million output tokens"),
    "energy-per-token": ("energy", "J per output token"),
}


def number(value: float, digits: int = 3) -> str:
    """`value` to `digits` significant digits with thousands separators; a dash where there is none."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    rounded = round(value, decimals)
    if abs(rounded) >= 10 ** (digits - 1):
        return f"{rounded:,.0f}"
    return f"{rounded:.{decimals}f}"


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best."""
    if math.isnan(seconds):
        return "–"
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (120.0, 1.0, "s"), (7200.0, 1 / 60, "min")):
        if abs(seconds) < limit:
            return f"{number(seconds * factor)} {unit}"
    return f"{number(seconds / 3600)} h"


def devices_phrase(cluster: str) -> str:
    """ "2x8xh200" as "2 × 8 × H200"."""
    terms = []
    for term in cluster.split("+"):
        counts, device = re.fullmatch(r"((?:\d+x)*)(.*)", term.strip(), re.IGNORECASE | re.DOTALL).groups()  # type: ignore[union-attr]
        terms.append(counts.lower().replace("x", " × ") + device.upper())
    return " + ".join(terms)


def parallel_phrase(pool: Pool, one: str = "1 GPU") -> str:
    """A pool's parallel degrees, those of 1 left out: "TP 4 · PP 2"; `one` where all are 1."""
    degrees = pool.parallel
    pairs = (("TP", degrees.tp), ("PP", degrees.pp), ("DP", degrees.dp), ("EP", degrees.ep))
    words = [f"{name} {value}" for name, value in pairs if value > 1]
    if degrees.sends_tokens:
        words.append(degrees.all2all_backend.replace("_", " ").replace("deepep", "DeepEP"))
    return " · ".join(words) or one


def pool_phrase(pool: Pool, cpus: Collection[str] = ()) -> str:
    """A pool in words: "2 replicas of TP 4 on H200". cpus: devices that are CPU processes."""
    copies = f"{pool.replicas} replicas" if pool.replicas > 1 else "one replica"
    names = pool.stage_devices or (pool.device,)
    one = "1 process" if set(names) <= set(cpus) else "1 GPU"
    where = " + ".join(name.upper() for name in dict.fromkeys(names))
    kept = "" if pool.offload.off else f" with experts offloaded ({offload_text(pool.offload)})"
    return f"{copies} of {parallel_phrase(pool, one)} on {where}{kept}"


def plan_phrase(plan: Plan, cpus: Collection[str] = ()) -> str:
    """All pools in words."""
    return " and ".join(pool_phrase(pool, cpus) for pool in plan.pools)


def offload_phrase(use: OffloadUse) -> str:
    """What offloaded experts did, in a sentence."""
    return (
        f"offloaded experts: {use.hit_rate:.0%} of those needed were in HBM or on their way; steps waited for experts "
        f"{use.stalled_share:.0%} of their time, and the host's link was busy {use.link_share:.0%} of it"
    )


def plan_short(plan: Plan) -> str:
    """A plan as a table cell: "2 × (TP 4)"; with the device where the cluster has several types."""
    mixed = "+" in plan.cluster
    parts = []
    for pool in plan.pools:
        device = "/".join(dict.fromkeys(pool.stage_devices)) or pool.device
        kept = "" if pool.offload.off else f" {offload_text(pool.offload)}"
        parts.append(f"{pool.replicas} × ({parallel_phrase(pool)})" + (f" {device}" if mixed else "") + kept)
    return " + ".join(parts)


def plan_details(plan: Plan) -> str:
    """What a hover shows of a plan, HTML lines."""
    lines = [f"<b>{plan_short(plan)}</b>", f"{plan.devices} GPUs, weights {plan.weight_dtype}"]
    for pool in plan.pools:
        knobs = pool.scheduler
        lines.append(
            f"{pool.device}: {knobs.scheduling}, max_num_seqs {knobs.max_num_seqs:,}, "
            f"max_num_batched_tokens {knobs.max_num_batched_tokens:,}"
            + ("" if pool.overlap.off else f", overlap {overlap_name(pool.overlap)}")
            + ("" if pool.offload.off else f", experts {offload_text(pool.offload)}")
        )
    return "<br>".join(lines)
