"""Trial: one configuration of a case, walked."""

from __future__ import annotations

from dataclasses import dataclass

from simtool.plan import ExpertOffload
from simtool.planners.offload.case import OffloadCase
from simtool.simulator.offload.placing import used_most
from simtool.simulator.offload.served import policy_of
from simtool.simulator.offload.store import expert_store
from simtool.simulator.offload.walk import walk


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is planned. way: policy, window, recall. slots: of each layer (predicted-path: together); staging: beside.

    The most used experts are in the slots at the start, whatever the policy.
    """

    weight_dtype: str
    batch: int
    way: ExpertOffload
    slots: tuple[int, ...]
    staging: int

    @property
    def held(self) -> int:
        """Experts that HBM has room for."""
        return sum(self.slots) + self.staging


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A walk of it. step_s: mean; device_bytes: memory that the engine needs; experts_bytes: of its slots, in HBM."""

    choice: Choice
    tokens_per_s: float
    step_s: float
    hit_rate: float
    loads_per_token: float
    cpu_per_token: float
    experts_bytes: float
    device_bytes: float


def try_choice(case: OffloadCase, choice: Choice, device_bytes: float) -> Trial:
    """Walk it."""
    shared = choice.way.policy == "predicted-path"
    store = expert_store(
        case.layers,
        case.experts,
        max(1, round(case.expert_bytes)),
        sum(choice.slots) if shared else choice.slots,
        shared=shared,
        staging=choice.staging,
    )
    done = walk(
        store,
        policy_of(choice.way),
        case.needs,
        case.prices[choice.way.policy],
        guess=case.guesses.get((choice.way.policy, choice.way.window)),
        resident=used_most(case.uses, choice.slots),
    )
    return Trial(
        choice=choice,
        tokens_per_s=case.tokens / done.makespan_s,
        step_s=done.makespan_s / case.needs.steps,
        hit_rate=done.hit_rate,
        loads_per_token=done.total("loads") / case.tokens,
        cpu_per_token=done.total("cpu") / case.tokens,
        experts_bytes=choice.held * case.expert_bytes,
        device_bytes=device_bytes,
    )
