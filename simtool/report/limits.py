"""What the model leaves out, said on the page."""

from __future__ import annotations

from simtool.plan import Plan

_ALWAYS = (
    "A busy front end: tokenisation, HTTP and detokenisation cost every request the same latency, whatever the load.",
    "Speculative decoding and multi-token prediction; grammars and tool calls; LoRA adapters.",
    "Clock and thermal throttling, noisy neighbours, and differences between GPUs of one type.",
    "Engine start-up: weights are loaded and CUDA graphs are captured before the first request.",
    "Requests' real text: output lengths are those of the workload, whatever the model would have said.",
    "Hosts, switches, cooling and idle hours: cost is the GPUs' price by the hour, energy the GPUs' own.",
)


def limits(plan: Plan, *, moe: bool) -> list[str]:
    """Statements for this plan, the ones that depend on it first."""
    found = []
    if moe:
        found.append("This model's own routing: experts are priced under a power law (exponent 1.01).")
    if len({pool.device for pool in plan.pools}) > 1:
        found.append("A router that knows unequal replicas: requests are spread as the plan's router says.")
    if any(pool.parallel.pp > 1 for pool in plan.pools):
        found.append("Contention between pipeline transfers and tensor-parallel collectives on the same links.")
    return [*found, *_ALWAYS]
