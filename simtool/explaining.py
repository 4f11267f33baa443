"""Explain one step of a plan, by the batch's text; and say which of the user's profiles price nothing in it."""

from __future__ import annotations

from simtool.errors import InputError
from simtool.hardware.kernel_profile import KernelProfile
from simtool.hardware.own_cluster import own_cluster
from simtool.hardware.own_profiles import load_own_profiles, with_file
from simtool.models.config import load_architecture
from simtool.plan import Plan, Pool
from simtool.simulator.batch_text import parse_batch
from simtool.simulator.explain import StepExplanation, explain_step
from simtool.simulator.priced_cluster import priced_cluster


def explain(plan: Plan, batch: str, pool: int = 0) -> StepExplanation:
    """Where one step's time goes on a replica of the plan's pool number `pool`.

    batch: "decode:64x2048", "prefill:1x512@1024" or such terms joined by "+". Raises InputError for a batch that the
    plan's scheduler would not form.
    """
    chosen = pool_of(plan, pool)
    hardware, host = priced_cluster(own_cluster(plan.cluster, plan.profiles), plan.kernel_library, plan.profiles)
    arch = load_architecture(plan.model, plan.weight_dtype)
    return explain_step(arch, chosen, hardware, parse_batch(batch), host=host)


def pool_of(plan: Plan, number: int) -> Pool:
    """The plan's pool of that number, counted from 0. Raises InputError."""
    if not 0 <= number < len(plan.pools):
        raise InputError(number, f"the plan has {len(plan.pools)} pools", "they are counted from 0")
    return plan.pools[number]


def unused_profiles(plan: Plan) -> list[str]:
    """A line for each of the plan's profiles that prices no operator of its steps, with the reason."""
    if not plan.profiles:
        return []
    steps = [explain(plan, batch, n) for n in range(len(plan.pools)) for batch in ("decode:1x1", "prefill:1x1")]
    sources = [source for step in steps for source in (step.host_source, *(row.source for row in step.rows))]
    return [
        f"profile {profile.file} ({profile.device}/{profile.library}) is not used: {_reason(plan, profile)}"
        for profile in load_own_profiles(plan.profiles)
        if not any(with_file("", profile.file) in source for source in sources)
    ]


def _reason(plan: Plan, profile: KernelProfile) -> str:
    if profile.device not in own_cluster(plan.cluster, plan.profiles).devices_by_type:
        return f"the cluster is {plan.cluster}"
    if profile.library != plan.kernel_library:
        return f"--kernel-library is {plan.kernel_library}"
    return "another profile of this device and library comes first, or it holds no operator of this plan"
