"""Explain one step of a plan, by the batch's text."""

from __future__ import annotations

from simtool.errors import InputError
from simtool.hardware.cluster import parse_cluster
from simtool.hardware.fitted import load_cost_model
from simtool.models.config import load_architecture
from simtool.plan import Plan
from simtool.simulator.batch_text import parse_batch
from simtool.simulator.explain import StepExplanation, explain_step
from simtool.simulator.host import load_host
from simtool.simulator.step_costs import StageHardware


def explain(plan: Plan, batch: str, pool: int = 0) -> StepExplanation:
    """Where one step's time goes on a replica of the plan's pool number `pool`.

    batch: "decode:64x2048", "prefill:1x512@1024" or such terms joined by "+". Raises InputError for a batch that the
    plan's scheduler would not form.
    """
    if not 0 <= pool < len(plan.pools):
        raise InputError(pool, f"the plan has {len(plan.pools)} pools", "they are counted from 0")
    return explain_step(
        load_architecture(plan.model, plan.weight_dtype),
        plan.pools[pool],
        plan_hardware(plan),
        parse_batch(batch),
        host=load_host(plan.kernel_library),
    )


def plan_hardware(plan: Plan) -> dict[str, StageHardware]:
    """Device name -> device, cost model and node size, for every device type of the plan's cluster."""
    cluster = parse_cluster(plan.cluster)
    groups = {name: cluster.group_of(name) for name in cluster.devices_by_type}
    return {
        name: StageHardware(
            device=group.device,
            cost_model=load_cost_model(group.device, group, plan.kernel_library),
            devices_per_node=group.devices_per_node,
        )
        for name, group in groups.items()
    }
