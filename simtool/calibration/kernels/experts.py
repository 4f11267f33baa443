"""Routed experts: rows sorted by expert, (gate and) up, activation, down, and the weighted sum a token.

Matrices are up [experts, branches x inner, hidden] and down [experts, hidden, inner]. `chosen` int64[tokens, top_k]
counts experts from this rank's first; what is outside of 0..experts-1 belongs to other ranks and adds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from simtool.calibration.kernels.memory import activated

OneExpert = Callable[[int, torch.Tensor], torch.Tensor]  # (expert, its rows [n, hidden]) -> [n, hidden]


def grouped_experts(
    x: torch.Tensor, chosen: torch.Tensor, weight: torch.Tensor, up: torch.Tensor, down: torch.Tensor
) -> torch.Tensor:
    """Two grouped GEMMs over all experts; shapes do not depend on the routing, so a CUDA graph can hold it.

    x [tokens, hidden], weight [tokens, top_k] -> [tokens, hidden].
    """
    order, counts = sorted_rows(chosen, up.shape[0])
    ends = torch.cumsum(counts, 0).to(torch.int32)
    found = run_grouped(x[order // chosen.shape[1]], up, down, ends)
    # rows behind the last expert's are other ranks' and hold nothing that was computed
    own = torch.arange(len(order), device=x.device) < ends[-1]
    found = torch.where(own[:, None], found, 0.0)
    back = torch.empty_like(found).index_copy_(0, order, found).view(*chosen.shape, -1)
    return torch.bmm(weight[:, None, :], back)[:, 0]


def looped_experts(
    x: torch.Tensor,
    chosen: torch.Tensor,
    weight: torch.Tensor,
    experts: int,
    one: OneExpert,
    loads: Sequence[int] | None = None,
    order_of: Callable[[Sequence[int]], Sequence[int]] = list,
) -> torch.Tensor:
    """One expert after the other; idle ones cost nothing.

    loads: rows of each expert where they are known (a CUDA graph cannot ask for them). order_of: in which order to run
    the experts that have rows.
    """
    order, counts = sorted_rows(chosen, experts)
    rows = counts.tolist() if loads is None else loads
    order = order[: sum(rows)]
    tokens = order // chosen.shape[1]
    scaled = run_loop(x[tokens], rows, one, order_of) * weight.reshape(-1)[order, None]
    return torch.zeros_like(x).index_add_(0, tokens, scaled)


def sorted_rows(chosen: torch.Tensor, experts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Places of `chosen`, flattened, sorted by expert, other ranks' last; and rows of each expert, int64[experts]."""
    flat = chosen.reshape(-1)
    own = torch.where((flat >= 0) & (flat < experts), flat, experts)
    counts = torch.zeros(experts + 1, dtype=torch.int64, device=flat.device)
    counts.scatter_add_(0, own, torch.ones_like(own))
    return torch.argsort(own, stable=True), counts[:experts]


def run_grouped(x: torch.Tensor, up: torch.Tensor, down: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Experts on rows sorted by expert; `ends` int32[experts]: the row after each expert's last."""
    inner = activated(torch._grouped_mm(x, up.transpose(-2, -1), offs=ends), down.shape[-1])
    return torch._grouped_mm(inner, down.transpose(-2, -1), offs=ends)


def run_loop(
    x: torch.Tensor,
    loads: Sequence[int],
    one: OneExpert,
    order_of: Callable[[Sequence[int]], Sequence[int]] = list,
) -> torch.Tensor:
    """Experts on rows sorted by expert; loads: rows of each."""
    starts, total = [], 0
    for load in loads:
        starts.append(total)
        total += load
    busy = [expert for expert, load in enumerate(loads) if load]
    parts = {expert: one(expert, x[starts[expert] : starts[expert] + loads[expert]]) for expert in order_of(busy)}
    return torch.cat([parts[expert] for expert in busy]) if busy else x[:0]


def expert_of(up: torch.Tensor, down: torch.Tensor) -> OneExpert:
    """Experts whose matrices lie in two tensors."""
    return lambda expert, rows: one_expert(rows, up[expert], down[expert])


def one_expert(x: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """[rows, hidden] through one expert's matrices."""
    return F.linear(activated(F.linear(x, up), down.shape[-1]), down)
