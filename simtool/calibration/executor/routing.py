"""Routing: which experts a token goes to."""

from __future__ import annotations

import torch

from simtool.models.architecture import MoeMlp


def routed(logits: torch.Tensor, mlp: MoeMlp, bias: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Router logits [tokens, experts] -> weights fp32 [tokens, top_k], which add up to 1, and experts int64.

    bias: added to the probabilities when experts are chosen, not when they are weighed (DeepSeek-V3 report, section
    2.1.2). With groups, only experts of the groups with the highest probability of any are chosen from
    (DeepSeek-V2, arXiv 2405.04434, section 2.1.3).
    """
    scores = torch.softmax(logits.float(), dim=-1)
    choice = scores if bias is None else scores + bias
    if mlp.num_groups > 1:
        by_group = choice.view(len(choice), mlp.num_groups, mlp.num_experts // mlp.num_groups)
        best = torch.topk(by_group.amax(dim=-1), mlp.topk_groups, dim=-1).indices
        open_groups = torch.zeros_like(by_group[:, :, 0]).scatter_(1, best, 1.0)
        choice = by_group.masked_fill(open_groups[:, :, None] == 0, float("-inf")).flatten(1)
    chosen = torch.topk(choice, mlp.top_k, dim=-1).indices
    weight = scores.gather(1, chosen)
    return weight / weight.sum(dim=-1, keepdim=True), chosen
