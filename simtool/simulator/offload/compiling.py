"""An engine whose experts are offloaded, from one that has them all in HBM."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simtool.hardware.cost import WEAKEST_LAST
from simtool.models.architecture import ModelArchitecture
from simtool.models.offload_memory import expert_bytes
from simtool.models.routing.shape import MoeShape, moe_shape
from simtool.plan import Pool
from simtool.simulator.engine import EngineSpec
from simtool.simulator.host import HostOverhead
from simtool.simulator.offload.costs import ExpertPrices, price_experts
from simtool.simulator.offload.routes import RouteBank
from simtool.simulator.offload.served import OffloadSpec
from simtool.simulator.step_costs import StageHardware
from simtool.simulator.tables import Array, StepTables


def offloaded_engine(
    spec: EngineSpec,
    arch: ModelArchitecture,
    pool: Pool,
    hardware: StageHardware,
    host: HostOverhead,
    bank: RouteBank,
) -> EngineSpec:
    """`spec` with the pool's offload: its tables count for experts the least that they can take."""
    shape = moe_shape(arch)
    prices, provenance = price_experts(arch, pool, hardware, host)
    sides = (spec.tables, spec.lower, spec.upper)
    # without an interval all three are one object, and stay one
    priced = [prices[index if tables is not spec.tables else 0] for index, tables in enumerate(sides)]
    nominal, lower, upper = (_with_experts(t, p, pool, shape) for t, p in zip(sides, priced, strict=True))
    kinds = dict(spec.provenance)
    for family, kind in provenance.items():
        kinds[family] = max(kinds.get(family, kind), kind, key=lambda one: [*WEAKEST_LAST].index(one))
    return replace(
        spec,
        tables=nominal,
        lower=nominal if spec.lower is spec.tables else lower,
        upper=nominal if spec.upper is spec.tables else upper,
        provenance=dict(sorted(kinds.items())),
        offload=OffloadSpec(
            offload=pool.offload,
            shape=shape,
            bank=bank,
            expert_bytes=expert_bytes(arch, pool.parallel),
            dense_share=dense_share(arch, shape),
        ),
    )


def _with_experts(tables: StepTables, experts: ExpertPrices, pool: Pool, shape: MoeShape) -> StepTables:
    tokens = np.arange(tables.shared_s.shape[1], dtype=np.float64)
    on_device = pool.offload.policy not in ("static-cpu", "static-cheaper")  # the CPU may take any part of the work
    least = experts.least_s(tokens, shape.top_k, len(shape.layers)) if on_device else np.zeros_like(tokens)
    return replace(tables, shared_s=least[None, :], experts=experts)


def dense_share(arch: ModelArchitecture, shape: MoeShape) -> Array:
    """Layers up to each mixture layer since the last one, those behind the last in the first, over all layers."""
    before = np.diff(np.array(shape.layers), prepend=-1).astype(np.float64)
    before[0] += len(arch.layers) - 1 - shape.layers[-1]
    return np.asarray(before / len(arch.layers))
