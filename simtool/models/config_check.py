"""Consistency of an architecture that was read from a file: what no single key can show."""

from __future__ import annotations

from simtool.errors import InputError
from simtool.models.architecture import Attention, Layer, ModelArchitecture, MoeMlp


def check_architecture(arch: ModelArchitecture) -> None:
    """Raise InputError where the parts contradict each other: heads that cannot be grouped, more experts chosen than
    there are, a model without any mixer."""
    for layer in set(arch.layers) | set(arch.mtp_layers):
        _check_heads(layer, arch.name)
        _check_experts(layer, arch.name)
    if all(layer.mixer is None for layer in arch.layers):
        raise InputError(arch.name, "no layer mixes tokens", "give the layers' kinds")


def _check_heads(layer: Layer, name: str) -> None:
    mixer = layer.mixer
    if isinstance(mixer, Attention) and mixer.num_heads % mixer.num_kv_heads:
        rule = f"{mixer.num_heads} attention heads are not a multiple of {mixer.num_kv_heads} KV heads"
        raise InputError(name, rule, "num_attention_heads, num_key_value_heads")


def _check_experts(layer: Layer, name: str) -> None:
    mlp = layer.mlp
    if not isinstance(mlp, MoeMlp):
        return
    if mlp.top_k > mlp.num_experts:
        raise InputError(name, f"{mlp.top_k} experts a token of {mlp.num_experts}", "num_experts_per_tok, num_experts")
    if mlp.num_experts % mlp.num_groups or mlp.topk_groups > mlp.num_groups:
        rule = f"{mlp.num_experts} experts in {mlp.num_groups} groups, {mlp.topk_groups} of them chosen"
        raise InputError(name, rule, "n_group must divide the experts and be at least topk_group")
