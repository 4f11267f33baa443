"""Laws of dispatch and combine: what crosses nodes is what the routing reaches, priced as DeepEP was measured."""

from dataclasses import replace

import numpy as np
import pytest

from simtool.hardware.cluster import parse_cluster
from simtool.hardware.collectives import collective_model
from simtool.hardware.cost import Cost
from simtool.models.architecture import MoeMlp
from simtool.models.config import load_architecture
from simtool.models.lowering_mlp import expert_operators
from simtool.models.lowering_shard import make_shard
from simtool.models.operators import Operator
from simtool.models.routing.reach import reached_share
from simtool.plan import All2AllBackend, Parallel

LOW, HIGH = "deepep_low_latency", "deepep_high_throughput"
DISPATCH_US = {8: 77, 16: 118, 32: 155, 64: 173, 128: 192, 256: 194}  # DeepEP's README, H800, 128 tokens a rank
DEEPSEEK = load_architecture("deepseek-v3")
TOKENS = 2.0 ** np.arange(13)  # of a rank


def exchange(ranks: int, backend: All2AllBackend, tokens: np.ndarray = TOKENS) -> dict[str, Operator]:
    shard = make_shard(DEEPSEEK, Parallel(dp=ranks, ep=ranks, all2all_backend=backend), 0, devices_per_node=8)
    found = expert_operators(shard, ranks * tokens)
    return {operator.collective: operator for operator in found if operator.collective}


def price(operator: Operator, device: str, nodes: int) -> Cost:
    return collective_model(parse_cluster(f"{nodes}x8x{device}").groups[0], "sglang").price_operator(operator)


@pytest.mark.parametrize("backend", [LOW, HIGH])
@pytest.mark.parametrize("ranks", [8, 32, 128])
@pytest.mark.parametrize("device", ["h200", "h800", "a100"])
def test_more_tokens_take_longer(backend, ranks, device):
    for operator in exchange(ranks, backend).values():
        cost = price(operator, device, ranks // 8)
        assert (np.diff(cost.seconds) >= 0).all()
        assert cost.seconds[-1] > 4 * cost.seconds[0]
        assert (cost.lower <= cost.seconds).all()
        assert (cost.roofline_s <= cost.seconds).all()
        nothing = price(replace(operator, dims={**operator.dims, "bytes": 0 * TOKENS, "across": 0 * TOKENS}), device, 1)
        assert not nothing.seconds.any()


def test_what_crosses_nodes():
    """Low latency: a copy an expert, 3 of 4 of them elsewhere; else one a node that is reached, of 8 at most 4."""
    mlp = next(layer.mlp for layer in DEEPSEEK.layers if isinstance(layer.mlp, MoeMlp))
    low, high = exchange(32, LOW)["combine"], exchange(32, HIGH)["combine"]
    assert low.dims["across"] + low.dims["bytes"] == pytest.approx(TOKENS * 8 * 7168 * 2)
    assert low.dims["across"] == pytest.approx(3 * low.dims["bytes"])
    assert high.dims["across"] == pytest.approx(TOKENS * 3 * reached_share(mlp, 4) * 7168 * 2)
    eight = exchange(64, HIGH)["combine"].dims["across"] / (TOKENS * 7168 * 2)
    assert (eight < 4 * 7 / 8 + 1e-9).all()
    dispatch = exchange(32, LOW)["dispatch"]
    assert (dispatch.dims["across"] / low.dims["across"]).max() < 0.53  # FP8 and its scales beside BF16


def test_one_node_is_as_measured():
    for kind in ("dispatch", "combine"):
        operator = exchange(8, LOW)[kind]
        cost = price(operator, "h200", 1)
        measured = collective_model(parse_cluster("8xh200").groups[0], "deepep_ll").price(
            kind, operator.dims["bytes"], 8
        )
        assert cost.seconds == pytest.approx(measured.seconds)
        assert cost.provenance == "interpolated"
    assert "nccl all_to_all" in price(exchange(8, LOW)["dispatch"], "a100", 1).source


def test_published_low_latency_dispatch_within_a_fifth():
    """Nothing is fitted to these: H200 inside a node, links and NICs of the catalogue beyond."""
    for ranks, published in DISPATCH_US.items():
        seconds = price(exchange(ranks, LOW, np.array([128.0]))["dispatch"], "h800", ranks // 8).seconds[0]
        assert seconds * 1e6 == pytest.approx(published, rel=0.2)
