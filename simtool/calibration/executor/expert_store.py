"""ExpertStore: the routed experts' matrices of one layer on one rank, all on the device."""

from __future__ import annotations

from typing import Protocol

import torch

from simtool.calibration.executor.site import LayerSite
from simtool.calibration.executor.timer import FamilyTimer
from simtool.calibration.executor.weights import share
from simtool.calibration.kernels.experts import expert_of, grouped_experts, looped_experts
from simtool.models.architecture import MoeMlp


class ExpertStore(Protocol):
    """Runs this rank's experts."""

    def run(self, x: torch.Tensor, chosen: torch.Tensor, weight: torch.Tensor, timer: FamilyTimer) -> torch.Tensor:
        """[tokens, hidden] -> this rank's part of the sum; `chosen` counts experts from this rank's first."""


class ResidentExperts:
    """One grouped GEMM where torch has it (bf16 on a GPU), a loop over the experts elsewhere."""

    def __init__(self, up: torch.Tensor, down: torch.Tensor) -> None:
        self._up = up
        self._down = down
        self._grouped = groups_on(up.device.type, up.dtype)

    def run(self, x: torch.Tensor, chosen: torch.Tensor, weight: torch.Tensor, timer: FamilyTimer) -> torch.Tensor:
        """As ExpertStore says."""
        if self._grouped:
            return timer.run("moe", grouped_experts, x, chosen, weight, self._up, self._down)
        one = expert_of(self._up, self._down)
        return timer.run("moe", looped_experts, x, chosen, weight, len(self._up), one)


def groups_on(device: str, dtype: torch.dtype) -> bool:
    """Whether the experts run as one grouped GEMM."""
    return device == "cuda" and dtype == torch.bfloat16 and hasattr(torch, "_grouped_mm")


def first_expert(mlp: MoeMlp, site: LayerSite) -> int:
    """The first expert of this rank."""
    parallel = site.ranks.parallel
    return site.ranks.experts.index // parallel.moe_tp * (mlp.num_experts // parallel.ep)


def expert_matrices(mlp: MoeMlp, site: LayerSite, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """This rank's experts on `device`: up [experts, branches x inner, hidden] and down [experts, hidden, inner]."""
    parallel, weights = site.ranks.parallel, site.weights
    first, count = first_expert(mlp, site), mlp.num_experts // parallel.ep
    cut = share(mlp.intermediate_size, parallel.moe_tp, site.ranks.experts.index % parallel.moe_tp)
    inner = mlp.intermediate_size // parallel.moe_tp
    names = ("gate", "up") if mlp.gated else ("up",)
    pinned = device == "cpu" and weights.device == "cuda"
    up = torch.empty(count, len(names) * inner, site.hidden, dtype=weights.dtype, device=device, pin_memory=pinned)
    down = torch.empty(count, site.hidden, inner, dtype=weights.dtype, device=device, pin_memory=pinned)
    for index in range(count):
        prefix = f"expert_{first + index}_"
        for place, name in enumerate(names):
            matrix = weights.matrix(site.index, prefix + name, mlp.intermediate_size, site.hidden, cut)
            up[index, place * inner : (place + 1) * inner] = matrix
        down[index] = weights.matrix(site.index, prefix + "down", site.hidden, mlp.intermediate_size, cut_columns=cut)
    return up, down
