"""A device that is exactly its roofline, and small architectures by hand: tests depend on no catalogue and no fit."""

from dataclasses import dataclass

import numpy as np

from simtool.hardware.cost import Cost
from simtool.hardware.device import Device
from simtool.models.architecture import (
    Attention,
    DenseMlp,
    LatentAttention,
    Layer,
    Mixer,
    ModelArchitecture,
    MoeMlp,
    WeightDtypes,
)
from simtool.models.operators import Operator
from simtool.simulator.host import HostOverhead
from simtool.simulator.step_costs import StageHardware
from simtool.units import GIB

PEAK_FLOPS, HBM_BYTES_PER_S, LINK_BYTES_PER_S, LATENCY_S = 1e15, 3e12, 4e11, 2e-6
HOST = HostOverhead(base_s=1e-3, per_request_s=5e-6, eager_launch_s=5e-6, gap_s=2e-4, source="synthetic")


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """max(compute, memory, link) + a launch; interval ±10%."""

    def price(self, operator: Operator) -> Cost:
        floor = np.maximum(operator.flops / PEAK_FLOPS, operator.hbm_bytes / HBM_BYTES_PER_S)
        floor = np.maximum(floor, operator.link_bytes / LINK_BYTES_PER_S)
        seconds = np.where(floor > 0, floor + LATENCY_S * operator.launches, 0.0)
        return Cost(
            seconds=seconds,
            lower=0.9 * seconds,
            upper=1.1 * seconds,
            roofline_s=floor,
            provenance="roofline",
            source="synthetic",
        )


def device(usable_gib: float = 80.0, name: str = "synthetic") -> Device:
    return Device(
        name=name,
        aliases=(),
        vendor="none",
        architecture="none",
        compute_capability="0",
        flops={"bf16": PEAK_FLOPS, "fp16": PEAK_FLOPS, "fp32": PEAK_FLOPS / 16},
        hbm_bytes=usable_gib * GIB,
        usable_bytes=usable_gib * GIB,
        hbm_bytes_per_s=HBM_BYTES_PER_S,
        l2_bytes=5e7,
        sm_count=100,
        boost_hz=1.7e9,
        copy_engines=2,
        tdp_w=700.0,
        idle_w=70.0,
        scale_up="nvlink4",
        scale_up_bytes_per_s=LINK_BYTES_PER_S,
        pcie="pcie5",
        per_node=8,
        inter_node="ndr",
        c2c="",
        price_per_hour=None,
        price_date="",
        sources={},
    )


def hardware(usable_gib: float = 80.0) -> dict[str, StageHardware]:
    one = StageHardware(device=device(usable_gib), cost_model=Roofline(), devices_per_node=8)
    return {"synthetic": one}


def dense(
    *,
    name: str,
    layers: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    intermediate: int,
    vocab: int,
    dtype: str = "bf16",
    window: int = 0,
) -> ModelArchitecture:
    size = hidden // heads
    attention = Attention(num_heads=heads, num_kv_heads=kv_heads, head_dim=size, v_head_dim=size, window=window)
    layer = Layer(mixer=attention, mlp=DenseMlp(intermediate_size=intermediate), norm_params=2 * hidden)
    return ModelArchitecture(
        name=name,
        hidden_size=hidden,
        vocab_size=vocab,
        layers=(layer,) * layers,
        tie_word_embeddings=False,
        max_position_embeddings=131072,
        dtypes=WeightDtypes(attention=dtype, mlp=dtype),
        final_norm_params=hidden,
    )


def llama_8b(dtype: str = "bf16") -> ModelArchitecture:
    """Llama-3.1-8B (config.json)."""
    return dense(
        name="llama-3.1-8b",
        layers=32,
        hidden=4096,
        heads=32,
        kv_heads=8,
        intermediate=14336,
        vocab=128256,
        dtype=dtype,
    )


def llama_70b() -> ModelArchitecture:
    """Llama-3.1-70B (config.json)."""
    return dense(name="llama-3.1-70b", layers=80, hidden=8192, heads=64, kv_heads=8, intermediate=28672, vocab=128256)


def mixture(*, latent: bool = False, layers: int = 4, shared: int = 2048) -> ModelArchitecture:
    """A small mixture model: GQA or MLA, 64 experts, top 4."""
    if latent:
        mixer: Attention | LatentAttention = LatentAttention(
            num_heads=32,
            q_lora_rank=512,
            kv_lora_rank=512,
            qk_nope_head_dim=128,
            qk_rope_head_dim=64,
            v_head_dim=128,
        )
    else:
        mixer = Attention(num_heads=32, num_kv_heads=4, head_dim=128, v_head_dim=128)
    mlp = MoeMlp(num_experts=64, top_k=4, intermediate_size=1024, shared_intermediate_size=shared)
    return ModelArchitecture(
        name="mixture",
        hidden_size=4096,
        vocab_size=32000,
        layers=(Layer(mixer=mixer, mlp=mlp, norm_params=8192),) * layers,
        tie_word_embeddings=False,
        max_position_embeddings=32768,
        dtypes=WeightDtypes(),
        final_norm_params=4096,
    )


def one_mixer(mixer: Mixer) -> ModelArchitecture:
    """One layer of hidden size 512 with this mixer and nothing else."""
    return ModelArchitecture(
        name="one",
        hidden_size=512,
        vocab_size=1000,
        layers=(Layer(mixer=mixer, mlp=None, norm_params=512),),
        tie_word_embeddings=True,
        max_position_embeddings=8192,
        dtypes=WeightDtypes(),
    )
