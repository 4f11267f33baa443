"""Alpha-beta times of collective algorithms: what each costs on an ideal link, for bounds and what-if questions.

b is what nccl-tests counts: all_reduce, all_to_all and send_recv the buffer of one rank, all_gather its total output,
reduce_scatter its total input. n ranks, latency a a message, bandwidth B one direction a rank. Sources: Thakur et al.,
"Optimization of collective communication operations in MPICH" (2005); NCCL's algorithm notes; vLLM's
custom_all_reduce.cuh for one-shot and two-shot.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.hardware.links import Link

Array = NDArray[np.float64]
Kind = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv", "dispatch", "combine"]
Algorithm = Literal["auto", "ring", "tree", "nvls", "one_shot", "two_shot", "direct", "hierarchical"]

KINDS: tuple[str, ...] = get_args(Kind)
_ALL_REDUCE_ONLY = ("tree", "nvls", "one_shot", "two_shot")

# Share of a link's line rate that large messages reach. nvlink: NCCL bus bandwidth at 512 MiB over 300 / 450 GB/s on
# A100 and H200, 0.66-0.79; pcie: the same on a pair of L40S, 0.62-0.71 (fit_collectives --report prints both).
# network: public nccl-tests runs on DGX A100 and H100 pods, 185-190 of 200 and 360-390 of 400 GB/s.
# loopback: its catalogue number is a payload rate.
LINK_EFFICIENCY = {"nvlink": 0.75, "pcie": 0.65, "network": 0.92, "loopback": 1.0}


def check_kind(kind: str) -> None:
    """InputError unless `kind` is a collective."""
    if kind not in KINDS:
        raise InputError(kind, "is no collective", "one of " + ", ".join(KINDS))


def wire_factor(kind: str, ranks: int, reduces: bool = False) -> float:
    """Least bytes a rank sends in one direction, as a multiple of b. reduces: switches add up (NVLS, SHARP)."""
    share = (ranks - 1) / ranks
    match kind:
        case "all_reduce":
            return min(2 * share, 1.0) if reduces else 2 * share
        case "send_recv":
            return 1.0 if ranks > 1 else 0.0
        case _:
            return share


def algorithm_seconds(kind: str, algorithm: Algorithm, size: Array, ranks: int, link: Link) -> Array:
    """Seconds of `kind` over `ranks` on one link by one named algorithm. InputError if it cannot do that kind."""
    if ranks == 1:
        return np.zeros_like(size)
    if algorithm in _ALL_REDUCE_ONLY and kind != "all_reduce":
        raise InputError(algorithm, f"is an all_reduce algorithm, not for {kind}", "use auto, ring or direct")
    if algorithm == "nvls" and not link.reduces:
        raise InputError(algorithm, f"needs switches that reduce, {link.name} has none", "use auto, ring or tree")
    messages, factor = _messages(kind, algorithm, ranks)
    return messages * link.latency_s + factor * size / (link.bytes_per_s * LINK_EFFICIENCY[link.kind])


def _messages(kind: str, algorithm: Algorithm, ranks: int) -> tuple[float, float]:
    """(messages one after the other, bytes a rank sends / b)."""
    share, depth = (ranks - 1) / ranks, float(np.log2(ranks))
    match algorithm:
        case "ring":
            rounds = 2 if kind == "all_reduce" else 1
            return (1.0, 1.0) if kind == "send_recv" else (rounds * (ranks - 1), rounds * share)
        case "tree":  # reduce up, broadcast down, pipelined: each byte crosses a rank's link once up and once down
            return 2 * depth, 2.0
        case "nvls":  # push to the switch, multicast back
            return 2.0, 1.0
        case "one_shot":  # every rank reads all the others' buffers
            return 1.0, float(ranks - 1)
        case "two_shot":  # direct reduce-scatter, then direct all-gather
            return 2.0, 2 * share
        case "direct":
            return (2.0, 2 * share) if kind == "all_reduce" else (1.0, wire_factor(kind, ranks))
        case _:
            raise InputError(
                algorithm, "has no formula on a single link", "one of ring, tree, nvls, one_shot, two_shot, direct"
            )


def network_seconds(kind: str, size: Array, nodes: int, per_node: int, link: Link, nics: int) -> tuple[Array, Array]:
    """(latency, transfer) seconds of the part between nodes of a hierarchical collective; a node's ranks share `nics`.

    all_reduce runs on 1/per_node of the buffer after a reduce-scatter inside the node; gather, scatter and all-to-all
    bring (nodes-1)/nodes of the data of a node's ranks over per_node NICs.
    """
    if nodes == 1:
        return np.zeros_like(size), np.zeros_like(size)
    rate = link.bytes_per_s * LINK_EFFICIENCY["network"] * min(1.0, nics / per_node)
    depth = float(np.ceil(np.log2(nodes)))
    match kind:
        case "all_reduce":
            hops, sent = 2 * depth, 2 * (nodes - 1) / nodes / per_node
        case "all_gather" | "reduce_scatter":
            hops, sent = nodes - 1.0, (nodes - 1) / nodes / per_node
        case "send_recv":
            hops, sent = 1.0, 1.0
        case _:  # every rank sends (nodes-1)/nodes of its own buffer
            hops, sent = depth, (nodes - 1) / nodes
    return np.where(size > 0, hops * link.latency_s, 0.0), sent * size / rate
