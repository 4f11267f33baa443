"""Sources and traces that the tests of routing share."""

from dataclasses import replace

import numpy as np
from hypothesis import strategies as some

from simtool.models.routing.sampling import sample_trace
from simtool.models.routing.shape import MoeShape
from simtool.models.routing.source import RoutingSource, dirichlet, uniform, with_classes, zipf


def shape_of(experts, top_k, layers=2, groups=1, topk_groups=1):
    numbers = tuple(range(layers))
    return MoeShape(layers=numbers, num_experts=experts, top_k=top_k, groups=groups, topk_groups=topk_groups)


def trace_of(source: RoutingSource, tokens, seed=0, sequences=None):
    """Independent tokens, one a sequence, unless `sequences` share them."""
    sequences = sequences or tokens
    rng = np.random.default_rng(seed)
    return sample_trace(source, sequences=sequences, output_tokens=tokens // sequences, rng=rng)


@some.composite
def sources(draw, grouped=False):
    """Any source: stock popularity, maybe with classes, locality, groups."""
    groups = draw(some.sampled_from([2, 4])) if grouped else 1
    experts = groups * draw(some.integers(2, 8))
    topk_groups = draw(some.integers(1, groups))
    top_k = draw(some.integers(1, min(4, experts // groups * topk_groups)))
    shape = shape_of(experts, top_k, draw(some.integers(1, 3)), groups, topk_groups)
    rng = np.random.default_rng(draw(some.integers(0, 99)))
    kind = draw(some.sampled_from(["uniform", "zipf", "dirichlet"]))
    if kind == "dirichlet":
        source = dirichlet(shape, draw(some.sampled_from([0.3, 1.0, 10.0])), rng)
    else:
        source = uniform(shape) if kind == "uniform" else zipf(shape, draw(some.sampled_from([0.5, 1.2])), rng)
    if draw(some.booleans()):
        source = with_classes(source, draw(some.integers(1, 4)), draw(some.floats(0, 3)), rng)
    return replace(source, locality=draw(some.sampled_from([0.0, 0.0, 0.4, 0.9])))
