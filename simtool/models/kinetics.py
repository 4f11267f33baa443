"""KineticsShape: what samples cost in FLOP-equivalents, memory traffic of attention counted (Kinetics).

    compute = N (2 P g + 4 s H)        memory = 4 s' K I

P parameters that a token uses, H = query heads · head_dim and K = KV heads · head_dim, added up over layers, I FLOPs a
byte of the device, g generated tokens, c prompt tokens, s KV tokens read by one sample. Bytes are bf16's. Weights are
not counted as traffic (a large batch shares them). Source: Kinetics, arXiv 2506.05333.
"""

from __future__ import annotations

from dataclasses import dataclass

from simtool.errors import InputError
from simtool.models.architecture import Attention, ModelArchitecture
from simtool.models.parameters import parameter_counts

_BYTES = 4  # a key and a value, bf16


@dataclass(frozen=True, slots=True, kw_only=True)
class KineticsCost:
    """FLOPs, and KV bytes times the device's FLOPs a byte."""

    compute_flops: float
    memory_flops: float

    @property
    def total_flops(self) -> float:
        """Both: they are added, not overlapped."""
        return self.compute_flops + self.memory_flops


@dataclass(frozen=True, slots=True, kw_only=True)
class KineticsShape:
    """Parameters a token uses; query and KV elements a token, over all layers."""

    parameters: int
    query_elements: int
    kv_elements: int

    def cost(
        self, prompt: float, generated: float, samples: int = 1, budget: int = 0, intensity: float = 562.5
    ) -> KineticsCost:
        """Cost of `samples` answers of one prompt. budget: KV tokens that sparse attention reads (0: all).

        Dense samples read the prompt once between them; sparse ones choose for themselves. intensity: FLOPs a byte.
        """
        dense = prompt * generated + generated**2 / 2
        read = min(dense, _sparse(prompt, generated, budget)) if budget else dense
        flops = samples * (2.0 * self.parameters * generated + 4.0 * read * self.query_elements)
        shared = samples * read if budget else prompt * generated + samples * generated**2 / 2
        return KineticsCost(compute_flops=flops, memory_flops=_BYTES * shared * self.kv_elements * intensity)


def kinetics_shape(architecture: ModelArchitecture) -> KineticsShape:
    """A model's P, H and K. Raises InputError for one with anything but softmax attention over all tokens."""
    mixers = [layer.mixer for layer in architecture.layers if layer.mixer is not None]
    attention = [mixer for mixer in mixers if isinstance(mixer, Attention) and not mixer.window]
    if len(attention) != len(mixers) or not attention:
        raise InputError(architecture.name, "has other mixers than attention over all tokens", "a model of MHA or GQA")
    return KineticsShape(
        parameters=parameter_counts(architecture).active_all,
        query_elements=sum(mixer.num_heads * mixer.head_dim for mixer in attention),
        kv_elements=sum(mixer.num_kv_heads * mixer.head_dim for mixer in attention),
    )


def _sparse(prompt: float, generated: float, budget: int) -> float:
    """KV tokens of top-k as published, B g + ½ max(0, B − c)². (Σ min(B, c + i) would subtract the second term.)"""
    return budget * generated + max(0.0, budget - prompt) ** 2 / 2
