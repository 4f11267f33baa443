"""Every bundled model lowers, and its work is what its parameter count says."""

import numpy as np
import pytest

from simtool.models.architecture import LatentAttention, ModelArchitecture
from simtool.models.catalogue import load_catalogue
from simtool.models.config import load_architecture
from simtool.models.lowering import head_operators, token_operators
from simtool.models.lowering_attention import decode_operators, prefill_operators
from simtool.models.lowering_mlp import expert_operators
from simtool.models.lowering_shard import make_shard
from simtool.models.parameters import parameter_counts
from simtool.plan import Parallel

TOKENS = np.array([4096.0])


def projection_flops(arch: ModelArchitecture) -> float:
    """FLOPs of all that is not attention over the cache; MLA's kv_b belongs to the cache side of the lowering."""
    shard = make_shard(arch, Parallel(), 0)
    operators = token_operators(shard, TOKENS) + expert_operators(shard, TOKENS) + head_operators(shard, TOKENS)
    cache_side = prefill_operators(shard, np.ones(1), TOKENS, np.zeros(1))
    assert all(np.isfinite(one.hbm_bytes).all() for one in cache_side + decode_operators(shard, TOKENS, TOKENS))
    operators += [operator for operator in cache_side if operator.name == "kv_b"]
    flops = sum(operator.count * operator.flops[0] for operator in operators)
    for mixer, _, count in shard.mixers:  # sparse prefill is absorbed: kv_b is inside its kernel
        if isinstance(mixer, LatentAttention) and mixer.indexer is not None:
            expand = mixer.num_heads * (mixer.qk_nope_head_dim + mixer.v_head_dim) * mixer.kv_lora_rank
            flops += count * 2 * expand * TOKENS[0]
    return float(flops)


@pytest.mark.parametrize("name", [entry.name for entry in load_catalogue()])
def test_projections_do_two_flops_an_active_parameter_and_token(name):
    arch = load_architecture(name)
    counts = parameter_counts(arch)
    used = counts.active_without_embedding - arch.position_params
    assert projection_flops(arch) == pytest.approx(2 * used * TOKENS[0], rel=0.002)
