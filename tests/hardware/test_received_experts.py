"""Laws of experts behind an all-to-all: they cost no more than where every device sees all tokens, and no less than the
work of what reaches them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.hardware.received_experts import cheaper, gathered_experts, local_experts
from simtool.models.config import load_architecture
from simtool.models.lowering_mlp import expert_operators
from simtool.models.lowering_shard import make_shard
from simtool.models.operators import Operator
from simtool.plan import Parallel
from tests.hardware.test_cost import model_of

MODELS = ("deepseek-v3", "qwen3-235b-a22b", "gpt-oss-120b")
TOKENS = 2.0 ** np.arange(14)  # of a rank


def received(model: str, ep: int, tokens: np.ndarray = TOKENS) -> Operator:
    shard = make_shard(load_architecture(model), Parallel(dp=ep, ep=ep, all2all_backend="deepep_low_latency"), 0)
    return next(operator for operator in expert_operators(shard, ep * tokens) if operator.name == "experts")


@settings(max_examples=15, deadline=None)
@given(
    device=st.sampled_from(("h200", "h100", "b200", "a100")),
    library=st.sampled_from(("vllm", "sglang", "trtllm")),
    model=st.sampled_from(MODELS),
    ep=st.sampled_from((2, 8, 32, 128)),
)
def test_what_reaches_a_device_costs_no_more_than_all_tokens(device, library, model, ep):
    cost_model, operator = model_of(device, library), received(model, ep)
    cost, gathered = cost_model.price(operator), cost_model.price(gathered_experts(operator))
    assert (cost.seconds <= gathered.seconds).all()
    assert (cost.lower <= cost.seconds).all()
    assert (cost.seconds <= cost.upper).all()
    assert (cost.seconds >= cost.roofline_s).all()
    assert (cost.seconds[1:] >= 0.8 * cost.seconds[:-1]).all()  # libraries change kernels, as tables show
    assert (cost.seconds[2:] >= 0.8 * cost.seconds[:-2]).all()
    assert cost.seconds[-1] > 10 * cost.seconds[0]


@pytest.mark.parametrize("library", ["vllm", "sglang", "trtllm"])
def test_large_expert_parallelism_no_longer_skips_what_others_hold(library):
    """DeepSeek-V3, EP128, 32 tokens a rank: 256 rows on two experts, not the 4,096 tokens of all ranks."""
    operator, cost_model = received("deepseek-v3", 128, np.array([32.0])), model_of("h200", library)
    cost, gathered = cost_model.price(operator), cost_model.price(gathered_experts(operator))
    assert cost.seconds[0] < gathered.seconds[0] / 4
    assert cost.provenance == "roofline"  # mixtures of two experts were not measured
    assert local_experts(operator).dims["num_experts"][0] == 2


def test_two_experts_parallel_are_about_what_gathering_costs():
    """At EP2 nearly every token reaches both devices, so both ways of seeing tokens are nearly one."""
    operator = received("deepseek-v3", 2)
    for library in ("vllm", "sglang", "trtllm"):
        cost = model_of("h200", library).price(operator).seconds
        gathered = model_of("h200", library).price(gathered_experts(operator)).seconds
        assert np.median(cost / gathered) > 0.85


def test_cheaper_takes_each_entry_from_the_lower_bound():
    few, many = (model_of("h200").price(received("deepseek-v3", ep)) for ep in (128, 2))
    for first, second in ((few, many), (many, few)):
        merged = cheaper(first, second)
        assert (merged.seconds == np.minimum(few.seconds, many.seconds)).all()
        assert merged.provenance == few.provenance
        assert (merged.lower <= merged.seconds).all()
        assert (merged.seconds <= merged.upper).all()
