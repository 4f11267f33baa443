"""EPLB's greedy: replicate the hottest, pack the heaviest first. The baseline that every placement is compared with.

The algorithm of DeepSeek's expert-parallelism load balancer (github.com/deepseek-ai/EPLB, MIT), written anew. It
reckons in float32, and so does this, so that near ties fall the same way; of equal loads the first goes first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Places = NDArray[np.int64]


def greedy_placement(loads: NDArray[np.float64], replicas: int, groups: int, nodes: int, gpus: int) -> Places:
    """Expert of each slot, [layers, replicas], slots GPU by GPU; loads: [layers, experts].

    Hierarchical (groups packed on nodes, then each node by itself) where the groups divide evenly over the nodes;
    otherwise global, as EPLB does. `groups` and `nodes` of 1 are the global policy.
    """
    weight = loads.astype(np.float32)
    if groups % nodes:
        return _hierarchical(weight, replicas, 1, 1, gpus)
    return _hierarchical(weight, replicas, groups, nodes, gpus)


def pack_evenly(weight: Floats, packs: int) -> tuple[Places, Places]:
    """(pack, place in the pack) of each item, every pack with equally many items; weight: [layers, items]."""
    layers, items = weight.shape
    size = items // packs
    if size == 1:
        return np.tile(np.arange(items), (layers, 1)), np.zeros((layers, items), np.int64)
    pack, place = np.empty((layers, items), np.int64), np.empty((layers, items), np.int64)
    for layer in range(layers):
        filled, held = np.zeros(packs, np.float32), np.zeros(packs, np.int64)
        for item in np.argsort(-weight[layer], kind="stable"):
            lightest = int(np.argmin(np.where(held < size, filled, np.inf)))
            pack[layer, item], place[layer, item] = lightest, held[lightest]
            filled[lightest] += weight[layer, item]
            held[lightest] += 1
    return pack, place


def replicate_hottest(weight: Floats, replicas: int) -> tuple[Places, Places]:
    """(expert of each replica, replicas of each expert): one each, then always one more of the largest share."""
    layers, experts = weight.shape
    held = np.ones((layers, experts), np.int64)
    expert = np.tile(np.arange(replicas), (layers, 1))
    every = np.arange(layers)
    for replica in range(experts, replicas):
        hottest = np.argmax(weight / held.astype(np.float32), axis=1)
        expert[:, replica] = hottest
        held[every, hottest] += 1
    return expert, held


def _hierarchical(weight: Floats, replicas: int, groups: int, nodes: int, gpus: int) -> Places:
    layers, experts = weight.shape
    size, a_node, slots = experts // groups, experts // nodes, replicas // gpus
    pack, place = pack_evenly(np.asarray(weight.reshape(layers, groups, size).sum(axis=2), np.float32), nodes)
    # experts in the order of their nodes, and where each stands in it
    position = ((pack * (groups // nodes) + place) * size)[:, :, None] + np.arange(size)
    ordered = np.argsort(position.reshape(layers, experts), axis=1)
    by_node = np.take_along_axis(weight, ordered, axis=1).reshape(-1, a_node)
    expert, held = replicate_hottest(by_node, replicas // nodes)
    share = np.take_along_axis(np.asarray(by_node / held, np.float32), expert, axis=1)
    gpu, slot = pack_evenly(share, gpus // nodes)
    inside = np.take_along_axis(expert, np.argsort(gpu * slots + slot, axis=1), axis=1)
    first = np.arange(0, experts, a_node)[None, :, None]
    return np.take_along_axis(ordered, (inside.reshape(layers, nodes, -1) + first).reshape(layers, replicas), axis=1)
