"""Dense: a gated or plain MLP of one layer on one rank."""

from __future__ import annotations

import torch

from simtool.calibration.executor.linear import Linear
from simtool.calibration.executor.site import LayerSite
from simtool.calibration.executor.timer import FamilyTimer
from simtool.calibration.executor.weights import WHOLE, share
from simtool.calibration.kernels.memory import activated


class Dense:
    """(Gate and) up column parallel, down row parallel; prefix: of the matrices' names. whole: not cut."""

    def __init__(
        self, site: LayerSite, inner: int, *, gated: bool, stored: str, prefix: str = "", whole: bool = False
    ) -> None:
        tp, place = site.ranks.parallel.tp, site.ranks.place.tp_rank
        cut = WHOLE if whole else share(inner, tp, place)
        names = ("gate", "up") if gated else ("up",)
        matrix, layer = site.weights.matrix, site.index
        self._up = Linear(
            torch.cat([matrix(layer, prefix + name, inner, site.hidden, cut) for name in names]), None, stored
        )
        self._down = Linear(matrix(layer, f"{prefix}down", site.hidden, inner, cut_columns=cut), None, stored)
        self._inner = inner if whole else inner // tp

    def __call__(self, x: torch.Tensor, timer: FamilyTimer) -> torch.Tensor:
        """[tokens, hidden] -> this rank's part of the sum [tokens, hidden]."""
        product = timer.run("gemm", self._up, x)
        inner = timer.run("elementwise", activated, product, self._inner)
        return timer.run("gemm", self._down, inner)
