"""What `simtool models NAME` tells: an architecture in numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from simtool.models.architecture import (
    Attention,
    DenseMlp,
    FeedForward,
    LatentAttention,
    Layer,
    Mixer,
    ModelArchitecture,
    MoeMlp,
    RecurrentMixer,
)
from simtool.models.memory import (
    full_kv_bytes_per_token,
    kv_bytes_per_token,
    state_bytes_per_sequence,
    weight_bytes,
    window_kv_bytes,
)
from simtool.models.parameters import parameter_counts


def describe_model(arch: ModelArchitecture) -> dict[str, Any]:
    """Parameters, bytes, layers by kind, dtypes and limits, as plain JSON values; sizes in elements, bytes or tokens.

    parameters: the decoder's total; active_parameters: of one token, counted as the publisher does (active_scope).
    kv_bytes_per_token: all attention layers, while the context is shorter than every window; kv_bytes_per_token_full:
    what a token adds once the windows are full; window_kv_bytes: what the windowed layers then hold a sequence.
    """
    counts = parameter_counts(arch)
    return {
        "name": arch.name,
        "source": arch.source,
        "model_type": arch.model_type,
        "parameters": counts.total,
        "active_parameters": counts.active,
        "active_scope": arch.active_scope,
        "parameter_counts": asdict(counts),
        "published_parameters": arch.published_params,
        "published_active_parameters": arch.published_active_params,
        "weight_bytes": weight_bytes(arch),
        "kv_bytes_per_token": kv_bytes_per_token(arch),
        "kv_bytes_per_token_full": full_kv_bytes_per_token(arch),
        "window_kv_bytes": window_kv_bytes(arch),
        "state_bytes_per_sequence": state_bytes_per_sequence(arch),
        "layers": len(arch.layers),
        "layers_by_kind": layers_by_kind(arch),
        "mtp_layers": len(arch.mtp_layers),
        "hidden_size": arch.hidden_size,
        "vocab_size": arch.vocab_size,
        "tie_word_embeddings": arch.tie_word_embeddings,
        "max_position_embeddings": arch.max_position_embeddings,
        "dtypes": asdict(arch.dtypes),
        "layers_with_own_dtypes": sum(layer.dtypes is not None for layer in arch.layers),
        "kv_dtype": arch.kv_dtype,
        "activation_dtype": arch.activation_dtype,
    }


def layers_by_kind(arch: ModelArchitecture) -> dict[str, int]:
    """How many layers of each kind, as "mixer + feed-forward"."""
    return dict(Counter(layer_kind(layer) for layer in arch.layers))


def layer_kind(layer: Layer) -> str:
    """A layer in a few words, such as "attention (window 1024) + 128 experts"."""
    return f"{_mixer_kind(layer.mixer)} + {_feed_forward_kind(layer.mlp)}"


def _mixer_kind(mixer: Mixer | None) -> str:
    match mixer:
        case None:
            return "none"
        case RecurrentMixer():
            return mixer.kind
        case LatentAttention():
            return "sparse latent attention" if mixer.indexer is not None else "latent attention"
        case Attention():
            name = "block-sparse attention" if mixer.indexer is not None else "attention"
            kind = "chunk" if mixer.chunked else "window"
            return f"{name} ({kind} {mixer.window})" if mixer.window else name


def _feed_forward_kind(mlp: FeedForward | None) -> str:
    match mlp:
        case None:
            return "none"
        case DenseMlp():
            return "dense"
        case MoeMlp():
            return f"{mlp.num_experts} experts"
