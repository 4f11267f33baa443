"""ServedStore: one replica's experts in a serving run, advanced by a step at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.models.offload_memory import layer_slots, staging_slots
from simtool.models.routing.shape import MoeShape
from simtool.offload_use import OffloadUse
from simtool.plan import ExpertOffload
from simtool.simulator.offload import arrays as col
from simtool.simulator.offload import policy as stock
from simtool.simulator.offload.building import Bools, make_arrays
from simtool.simulator.offload.costs import ExpertPrices
from simtool.simulator.offload.handle import handle
from simtool.simulator.offload.needs import no_needs
from simtool.simulator.offload.placing import used_most
from simtool.simulator.offload.policy import OffloadPolicy
from simtool.simulator.offload.prices import Prices
from simtool.simulator.offload.routes import RouteBank
from simtool.simulator.offload.serve_step import serve_step
from simtool.simulator.offload.store import OffloadStore, expert_store
from simtool.simulator.state import STEP_DECODES, STEP_PREFILL, State

F8 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadSpec:
    """An engine's offload, compiled. bank: its tokens' routes. expert_bytes: of an expert on one device.

    dense_share: float64[layers], what share of a step's time without experts, LM head and host comes before each
    mixture layer's experts; what comes after the last one's is counted before the first.
    """

    offload: ExpertOffload
    shape: MoeShape
    bank: RouteBank
    expert_bytes: float
    dense_share: F8


class ServedStore:
    """The state of one replica's store. What its steps did is kept in columns that grow."""

    def __init__(self, spec: OffloadSpec, experts: ExpertPrices) -> None:
        store, policy = store_of(spec), policy_of(spec.offload)
        layers, size = store.layers, len(store.object_layer)
        blank = no_needs(layers, 1)
        a = make_arrays(store, policy, blank, _prices(experts, layers, size), guess=blank, resident=resident_of(spec))
        self._arrays = a._replace(
            need_object=np.zeros(size, np.int64),
            need_tokens=np.zeros(size, np.int64),
            guess_object=np.zeros(size if spec.bank.guess.shape[2] else 0, np.int64),
        )
        self._handle = handle(self._arrays)
        self._copy_s = 0.0 if experts.apart else experts.load_s  # that nothing hides
        self._spec = spec
        self._rows = np.zeros(256, np.int64)
        self._counts = np.zeros((2, spec.shape.num_experts), np.int64)
        self._counted = np.zeros((256, 4), np.int64)
        self._timed = np.zeros((256, 6))
        self._steps = 0

    def step(self, state: State, row: int, lane: int, start_s: float, dense_s: float, rest_s: float) -> float:
        """Seconds of the step that is scheduled in the lane. dense_s: of its layers without experts; rest_s: beside."""
        bank, lane_i = self._spec.bank, state.lane_i[row, lane]
        tokens = int(lane_i[STEP_DECODES] + lane_i[STEP_PREFILL])
        if tokens > len(self._rows):
            self._rows = np.zeros(2 * tokens, np.int64)
        end_s = serve_step(
            self._handle,
            bank.experts,
            bank.guess,
            bank.row,
            bank.starts,
            bank.recorded,
            state.req_i,
            state.finish_heap[row, lane],
            state.chunks[row, lane],
            lane_i,
            self._rows,
            self._counts,
            dense_s * self._spec.dense_share,
            rest_s,
            start_s,
        )
        if np.isnan(end_s):
            known = np.diff(bank.starts)
            rule = f"lacks a token of the run; it has {len(known)} requests of {known.min()} to {known.max()} tokens"
            raise InputError("expert routing", rule, "record the trace with this workload, or name a source")
        copied_s = self._copy_s * int(self._arrays.step_count[0, col.LOADS])
        self._arrays.step_out[0, [col.WAIT_MISS, col.LINK_BUSY]] += copied_s
        self._keep(start_s, float(end_s) + copied_s)
        return float(end_s) + copied_s - start_s

    def _keep(self, start_s: float, end_s: float) -> None:
        if self._steps == len(self._counted):
            self._counted = np.concatenate([self._counted, np.zeros_like(self._counted)])
            self._timed = np.concatenate([self._timed, np.zeros_like(self._timed)])
        counts, out = self._arrays.step_count[0], self._arrays.step_out[0]
        self._counted[self._steps] = counts[[col.NEEDED, col.HITS, col.LOADS, col.ON_HOST]]
        self._timed[self._steps, :2] = start_s, end_s
        self._timed[self._steps, 2:] = out[[col.WAIT_MISS, col.WAIT_LATE, col.WAIT_CPU, col.LINK_BUSY]]
        counts[:] = 0
        out[:] = 0.0
        self._steps += 1

    def use(self) -> OffloadUse:
        """What the steps so far did."""
        counted, timed, layers = self._counted[: self._steps], self._timed[: self._steps], self._arrays.layer_count
        return OffloadUse(
            start_s=timed[:, 0].copy(),
            end_s=timed[:, 1].copy(),
            needed=counted[:, 0].copy(),
            hits=counted[:, 1].copy(),
            loads=counted[:, 2].copy(),
            cpu=counted[:, 3].copy(),
            stall_s=timed[:, 2:5].copy(),
            link_busy_s=timed[:, 5].copy(),
            layer_needed=layers[:, col.NEEDED].copy(),
            layer_hits=layers[:, col.HITS].copy(),
        )


def joined_use(uses: Sequence[OffloadUse]) -> OffloadUse | None:
    """The uses of several replicas as one, by start; None without any."""
    if not uses:
        return None
    order = np.argsort(np.concatenate([use.start_s for use in uses]), kind="stable")
    columns = ("start_s", "end_s", "needed", "hits", "loads", "cpu", "stall_s", "link_busy_s")
    return OffloadUse(
        **{name: np.concatenate([getattr(use, name) for use in uses])[order] for name in columns},
        layer_needed=np.sum([use.layer_needed for use in uses], axis=0),
        layer_hits=np.sum([use.layer_hits for use in uses], axis=0),
    )


def store_of(spec: OffloadSpec) -> OffloadStore:
    """The experts of all mixture layers, and the rooms that the offload gives them."""
    offload, shape = spec.offload, spec.shape
    slots, layers = layer_slots(offload, shape), len(shape.layers)
    shared = offload.policy == "predicted-path"
    return expert_store(
        layers,
        shape.num_experts,
        max(1, round(spec.expert_bytes)),
        sum(slots) if shared else slots,
        shared=shared,
        staging=staging_slots(offload, shape),
    )


def policy_of(offload: ExpertOffload) -> OffloadPolicy:
    """The hooks of a plan's policy."""
    match offload.policy:
        case "lru" | "lfu":
            return stock.lru(evict=offload.policy)
        case "speculative":
            return replace(stock.speculative(), window=offload.window)
        case "predicted-path":
            return stock.predicted_path(offload.window)
        case "static-cpu":
            return stock.static("cpu")
        case "static-cheaper":
            return stock.static("cheaper")
        case _:
            return stock.on_demand(order="each")


def resident_of(spec: OffloadSpec) -> Bools | None:
    """What is in HBM at the start: the most used experts where a policy keeps what it has, else nothing."""
    if spec.offload.policy in ("lru", "lfu", "speculative", "predicted-path"):
        return None
    return used_most(spec.bank.uses, layer_slots(spec.offload, spec.shape))


def _prices(experts: ExpertPrices, layers: int, size: int) -> Prices:
    return Prices(
        dense_s=np.zeros((1, layers)),
        expert_s=experts.expert_s[None, :],
        load_s=np.full(size, experts.load_s if experts.apart else 0.0),
        cpu_s=None if experts.cpu_s is None else experts.cpu_s[None, :],
        cpu_sync_s=experts.sync_s,
    )
