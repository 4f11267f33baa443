"""Expert offload for an engine that does not fit: policies that its library has, and the slots that fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from simtool.errors import InfeasibleError, InputError
from simtool.models.architecture import MoeMlp
from simtool.plan import ExpertOffload, KernelLibrary, OffloadPolicyName, Plan
from simtool.planners.backend import Backend

_TRIED: dict[KernelLibrary, tuple[OffloadPolicyName, ...]] = {
    "vllm": ("zero-copy",),
    "sglang": ("static-cpu",),
    "trtllm": (),
    "torch": ("lru", "speculative", "static-cheaper"),
}
_STEPS = 16  # numbers of slots that are tried, from all experts down
_SHARES = (1.0, 2 / 3, 1 / 3)  # of the most slots that fit: what is left is KV cache


def fitting_offloads(backend: Backend, plan: Plan) -> Iterator[ExpertOffload]:
    """Offloads with which the plan's one pool fits, where it does not fit without: of each policy at most three.

    The cache of KV grows by what slots leave free, so that the best number is a matter of simulation.
    """
    experts = {layer.mlp.num_experts for layer in backend.architecture.layers if isinstance(layer.mlp, MoeMlp)}
    parallel = plan.pools[0].parallel
    if len(experts) != 1 or max(parallel.pp, parallel.dp, parallel.ep) > 1:
        return
    count = experts.pop()
    steps = sorted({count * step // _STEPS for step in range(1, _STEPS + 1)} - {0}, reverse=True)
    for policy in _TRIED[plan.kernel_library]:
        most = next((slots for slots in steps if _fits(backend, plan, _offload(policy, slots))), 0)
        for slots in dict.fromkeys(max(1, int(most * share)) for share in _SHARES) if most else ():
            yield _offload(policy, slots)


def _offload(policy: OffloadPolicyName, slots: int) -> ExpertOffload:
    return ExpertOffload(policy=policy, slots=slots)


def _fits(backend: Backend, plan: Plan, offload: ExpertOffload) -> bool:
    pool = replace(plan.pools[0], offload=offload)
    try:
        backend.compile(replace(plan, pools=(pool,)), pool)
    except (InfeasibleError, InputError):
        return False
    return True
