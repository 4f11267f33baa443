"""Mixture: router, routed and shared experts of one layer on one rank, and the exchange of tokens between ranks."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from simtool.calibration.executor.calls import Calls, beside
from simtool.calibration.executor.dense import Dense
from simtool.calibration.executor.expert_store import ExpertStore, ResidentExperts, expert_matrices, first_expert
from simtool.calibration.executor.linear import Linear
from simtool.calibration.executor.offloaded_experts import OffloadedExperts
from simtool.calibration.executor.routing import routed
from simtool.calibration.executor.site import LayerSite
from simtool.calibration.executor.step import Step
from simtool.models.architecture import MoeMlp

NOBODY = -1  # the expert of a row that only fills up


class Mixture:
    """Tokens of several data-parallel ranks meet by an all-gather and part by a reduce-scatter (see the lowering)."""

    def __init__(self, mlp: MoeMlp, site: LayerSite) -> None:
        self._mlp, self._ranks = mlp, site.ranks
        self._first = first_expert(mlp, site)
        weights, layer = site.weights, site.index
        self._router = Linear(weights.matrix(layer, "router", mlp.num_experts, site.hidden))
        self._bias = weights.vector(layer, "router_bias", mlp.num_experts, spread=0.01) if mlp.router_bias else None
        self._shared = None
        if mlp.shared_intermediate_size:
            self._shared = Dense(
                site,
                mlp.shared_intermediate_size,
                gated=mlp.shared_gated,
                stored=site.dtypes.shared_experts,
                prefix="shared_",
                whole=site.ranks.sequence_parallel,
            )
        self._gate = weights.matrix(layer, "shared_expert_gate", 1, site.hidden) if mlp.shared_expert_gate else None
        self.experts: ExpertStore = _store(mlp, site)
        side = site.options.overlap.branch_stream and weights.device == "cuda"
        self._side = torch.cuda.Stream() if side else None  # type: ignore[no-untyped-call]

    def calls(self, x: torch.Tensor, step: Step) -> Calls[torch.Tensor]:
        """[tokens, hidden] -> [tokens, hidden], summed over all ranks; begins within a call, the router's."""
        ranks, timer = self._ranks, step.timer
        own, rows = x, step.inputs.widest
        if ranks.sequence_parallel:  # each tensor-parallel rank routes its share of the rows and gathers them back
            rows = -(-rows // ranks.tensor.size)
            own = x[ranks.tensor.index * rows : (ranks.tensor.index + 1) * rows]
        aside = self._begun_aside(own, step)
        weight, chosen = self._routed(own, step)
        experts = self._expert_calls(own, weight, chosen, rows, step)
        if self._shared is None or aside is not None:
            mixed, shared = (yield from experts), aside
        else:
            mixed, shared = yield from beside(experts, self._shared_calls(self._shared, own, step))
        step.crossed(mixed, shared)
        mixed = self._joined(mixed[: len(own)], shared, step)
        if ranks.sequence_parallel:
            yield ("close",)
            step.crossed(mixed)
            return timer.run("collective", ranks.tensor.all_gather, _filled(mixed, rows, 0.0))[: len(x)]
        if ranks.tensor.size > 1:
            yield ("close",)
            step.crossed(mixed)
            return timer.run("collective", ranks.tensor.all_reduce, mixed)
        return mixed

    def _expert_calls(
        self, x: torch.Tensor, weight: torch.Tensor, chosen: torch.Tensor, rows: int, step: Step
    ) -> Calls[torch.Tensor]:
        """This rank's rows through the experts. Of several ranks: every rank's rows through this rank's experts, and
        this rank's summed over all ranks, [rows, hidden]."""
        ranks, timer, top_k = self._ranks, step.timer, self._mlp.top_k
        if not ranks.sequence_parallel and ranks.data.size == 1:
            yield ("experts",)
            step.crossed(x, chosen, weight)
            return self.experts.run(x, chosen - self._first, weight.to(x.dtype), timer)
        group = ranks.experts if ranks.sequence_parallel else ranks.data
        yield ("dispatch",)
        step.crossed(x, chosen, weight)
        routes = torch.cat((_filled(weight, rows, 0.0), _filled(chosen.float(), rows, NOBODY)), dim=1)
        everything = timer.run("collective", group.all_gather, _filled(x, rows, 0.0))
        routes = timer.run("collective", group.all_gather, routes)
        yield ("experts",)
        step.crossed(everything, routes)
        chosen = routes[:, top_k:].long()
        # what only fills up must not become an expert of a rank whose first is another
        chosen = torch.where(chosen < 0, self._mlp.num_experts + self._first, chosen) - self._first
        mixed = self.experts.run(everything, chosen, routes[:, :top_k].to(x.dtype), timer)
        yield ("combine",)
        step.crossed(mixed)
        return timer.run("collective", group.reduce_scatter, mixed)

    def _routed(self, x: torch.Tensor, step: Step) -> tuple[torch.Tensor, torch.Tensor]:
        logits = step.timer.run("gemm", self._router, x)
        weight, chosen = step.timer.run("elementwise", routed, logits, self._mlp, self._bias)
        if step.routes is not None:
            step.routes.append(chosen)
        return weight, chosen

    def _begun_aside(self, x: torch.Tensor, step: Step) -> torch.Tensor | None:
        """The shared experts' part on a side stream; None where there is none."""
        if self._shared is None or self._side is None:
            return None
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            found = self._shared_part(self._shared, x, step)
        x.record_stream(self._side)
        return found

    def _shared_calls(self, shared: Dense, x: torch.Tensor, step: Step) -> Calls[torch.Tensor]:
        yield ("shared",)
        step.crossed(x)
        return self._shared_part(shared, x, step)

    def _shared_part(self, shared: Dense, x: torch.Tensor, step: Step) -> torch.Tensor:
        found = shared(x, step.timer)
        return found if self._gate is None else torch.sigmoid(F.linear(x, self._gate)) * found

    def _joined(self, mixed: torch.Tensor, shared: torch.Tensor | None, step: Step) -> torch.Tensor:
        if shared is None:
            return mixed
        if self._side is not None:
            torch.cuda.current_stream().wait_stream(self._side)
            shared.record_stream(torch.cuda.current_stream())
        return step.timer.run("elementwise", torch.add, mixed, shared)


def _store(mlp: MoeMlp, site: LayerSite) -> ExpertStore:
    offload, device = site.options.offload, site.weights.device
    if offload.off:
        return ResidentExperts(*expert_matrices(mlp, site, device))
    return OffloadedExperts(*expert_matrices(mlp, site, "cpu"), offload, device)


def _filled(x: torch.Tensor, rows: int, value: float) -> torch.Tensor:
    """[n, width] with rows of `value` behind it, `rows` in all."""
    return x if len(x) == rows else F.pad(x, (0, 0, 0, rows - len(x)), value=value)
