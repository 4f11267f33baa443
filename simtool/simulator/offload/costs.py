"""What an offloaded expert costs: on the device alone, over the host's link, on the host's CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.hardware.cost import WEAKEST_LAST, Provenance
from simtool.hardware.device import Device
from simtool.hardware.links import Link, load_link
from simtool.hardware.server import Server
from simtool.models.architecture import ModelArchitecture, MoeMlp, WeightDtypes
from simtool.models.lowering_mlp import expert_operators, expert_operators_alone
from simtool.models.lowering_shard import Shard
from simtool.models.offload_memory import expert_bytes
from simtool.models.operators import Operator
from simtool.models.routing.reach import touched_experts
from simtool.plan import Pool
from simtool.simulator.grids import token_grid
from simtool.simulator.host import HostOverhead
from simtool.simulator.offload.room import host_of
from simtool.simulator.step_costs import LOWER, NOMINAL, UPPER, StageHardware, priced, stage_shards

F8 = NDArray[np.float64]

# Share of a PCIe or C2C link's payload that copies from pinned memory reach: CUDA's bandwidthTest gives 24.5-26.5 GB/s
# on PCIe 4 x16 (0.78-0.84) and 52-56 on PCIe 5 (0.83-0.89). Nominal, then the fast and the slow end.
_COPY_SHARES = (0.82, 0.92, 0.6)
# Shares of DRAM's peak that a matrix-vector product on all cores reaches (STREAM: about 0.8; NUMA, threads cost), and
# FLOP/s a core: 32 a cycle (AVX2 FMA in fp32) at 2.5 GHz, of which good GEMMs reach 0.7 and plain loops far less.
# Assumed, nobody measured them for us: the ends are wide.
_DRAM_SHARES = (0.5, 0.85, 0.2)
_CORE_FLOPS, _CORE_SHARES = 32 * 2.5e9, (0.4, 1.0, 0.05)
_SYNC_S = (100e-6, 20e-6, 300e-6)  # two copies of activations and a host callback a layer; KTransformers' lie between


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertPrices:
    """Seconds of one expert on one device of a replica, at one end of the interval.

    expert_s: [t + 1] with 0..t tokens, launches included. load_s: its way into HBM. cpu_s: as expert_s, on the host's
    CPU (None where the host is the device). sync_s: of a layer that has any expert there. apart: a link copies while
    the device computes; where the host is the device, it does one after the other.
    """

    expert_s: F8
    load_s: float
    cpu_s: F8 | None
    sync_s: float
    apart: bool = True

    def least_s(self, tokens: F8, top_k: int, layers: int) -> F8:
        """Least seconds that the experts of a step of so many tokens take on the device, however they are routed.

        Each layer needs top_k experts or more, and every token's work is done by some: no less than the cheapest
        expert top_k times, and no less than the cheapest second a token.
        """
        counts = np.arange(1, len(self.expert_s))
        each, rate = self.expert_s[1:].min(), (self.expert_s[1:] / counts).min()
        one = top_k * self.expert_s[1]
        some = np.maximum(top_k * each, tokens * top_k * rate)
        return np.asarray(layers * np.where(tokens == 1, one, np.where(tokens > 0, some, 0.0)))


def price_experts(
    arch: ModelArchitecture, pool: Pool, hardware: StageHardware, host: HostOverhead
) -> tuple[tuple[ExpertPrices, ExpertPrices, ExpertPrices], Mapping[str, Provenance]]:
    """Nominal, lower and upper prices, and operator family → evidence. InputError for unlike mixture layers."""
    (shard,) = stage_shards(arch, pool.parallel, [hardware], kv_dtype=pool.kv.dtype)
    mixtures = [(mlp, dtypes) for mlp, dtypes, _ in shard.mlps if isinstance(mlp, MoeMlp)]
    if len(mixtures) != 1:
        raise InputError(arch.name, "has unlike mixture layers, whose experts cannot be offloaded alike")
    mlp, dtypes = mixtures[0]
    most = pool.scheduler.max_num_batched_tokens
    if graphs_hold(pool) or hardware.device.kind == "cpu":
        grid, seconds, operators = _grouped(shard, mlp, token_grid(most), hardware)
    else:
        grid, seconds, operators = _alone(shard, mlp, dtypes, token_grid(most), hardware)
    launch_s = 0.0 if graphs_hold(pool) else host.eager_launch_s * sum(op.launches for op in operators)
    counts, server = np.arange(most + 1), host_of(hardware.device)
    size = expert_bytes(arch, pool.parallel)
    flops = 2.0 * mlp.intermediate_size * (mlp.latent_size or arch.hidden_size) * (3 if mlp.gated else 2)
    ends = [
        ExpertPrices(
            expert_s=np.where(counts > 0, launch_s + np.interp(counts, grid, seconds[end]), 0.0),
            load_s=_load_s(hardware.device, size, end),
            cpu_s=None if server is None else _cpu_s(server, size * pool.parallel.tp, flops, counts, end),
            sync_s=_SYNC_S[end],
            apart=server is not None,
        )
        for end in (NOMINAL, LOWER, UPPER)
    ]
    return (ends[0], ends[1], ends[2]), {**_provenance(operators, hardware), "copies": "roofline"}


def _alone(
    shard: Shard, mlp: MoeMlp, dtypes: WeightDtypes, tokens: F8, hardware: StageHardware
) -> tuple[F8, F8, list[Operator]]:
    """(tokens, seconds [3, b], operators) of an expert that runs by itself, when it has come."""
    operators = expert_operators_alone(shard, mlp, dtypes, tokens)
    return tokens, priced(operators, hardware, tokens)[0], operators


def _grouped(shard: Shard, mlp: MoeMlp, tokens: F8, hardware: StageHardware) -> tuple[F8, F8, list[Operator]]:
    """The same of one among those that a step needs: its share of the price of all experts under uniform routing.

    Of kernels that compute all that are there at once (vLLM's, SGLang's), and of a CPU, whose price is a loop's.
    """
    operators = [replace(op, count=1, launches=0) for op in expert_operators(shard, tokens) if op.family == "moe"]
    needed = touched_experts(mlp, tokens)
    return tokens * mlp.top_k / needed, priced(operators, hardware, tokens)[0] / needed, operators


def graphs_hold(pool: Pool) -> bool:
    """Whether CUDA graphs can hold the experts: not where the host decides by what the gate has chosen."""
    return pool.scheduler.cuda_graphs and pool.offload.policy in ("none", "zero-copy", "static-cpu")


def host_link(device: Device) -> Link | None:
    """What bytes come over from host memory: C2C, else PCIe; None for a CPU, where they are copied inside memory."""
    return None if device.kind == "cpu" else load_link(device.c2c or device.pcie)


def _load_s(device: Device, size: float, end: int) -> float:
    link = host_link(device)
    if link is None:
        return 2.0 * size / device.hbm_bytes_per_s  # read and written
    return link.latency_s + size / (_COPY_SHARES[end] * link.bytes_per_s)


def _cpu_s(server: Server, size: float, flops: float, tokens: NDArray[np.int64], end: int) -> F8:
    """The whole expert, whatever the tensor-parallel degree: weights from DRAM, FLOPs on all cores."""
    reading = size / (_DRAM_SHARES[end] * server.dram_bytes_per_s)
    computing = flops * tokens / (_CORE_SHARES[end] * _CORE_FLOPS * server.cores)
    return np.where(tokens > 0, np.maximum(reading, computing), 0.0)


def _provenance(operators: list[Operator], hardware: StageHardware) -> dict[str, Provenance]:
    weakest: dict[str, Provenance] = {}
    for operator in operators:
        kind = hardware.cost_model.price(operator).provenance
        weakest[operator.family] = max(weakest.get(operator.family, kind), kind, key=WEAKEST_LAST.index)
    return weakest
