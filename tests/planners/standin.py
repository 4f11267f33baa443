"""A stand-in for models and hardware: an engine with a simple physics, run by the real simulator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simtool.errors import InfeasibleError
from simtool.metrics import serving_metrics, slo_attainment
from simtool.models.architecture import Attention, DenseMlp, Layer, ModelArchitecture, MoeMlp, WeightDtypes
from simtool.plan import Plan, Pool
from simtool.planners.backend import Backend, DeviceGroup
from simtool.planners.question import Question, Space
from simtool.simulator.engine import EngineSpec, MemoryBudget
from simtool.simulator.overlap.gain_tables import leap_table
from simtool.simulator.run import simulate_engines
from simtool.simulator.step_costs import DECODE_SHARES, PREFILL_SHARES
from simtool.simulator.tables import StepTables
from simtool.workload import Workload, make_workload

SPEED = {"fast": 1.0, "slow": 0.4}
MEMORY_TOKENS = {"fast": 4000, "slow": 2000}
PRICE = {"fast": 4.0, "slow": 1.0}


def architecture(*, moe: bool = False, layers: int = 8) -> ModelArchitecture:
    attention = Attention(num_heads=8, num_kv_heads=4, head_dim=64, v_head_dim=64)
    mlp = MoeMlp(num_experts=8, top_k=2, intermediate_size=512) if moe else DenseMlp(intermediate_size=2048)
    return ModelArchitecture(
        name="toy",
        hidden_size=512,
        vocab_size=1000,
        layers=tuple(Layer(mixer=attention, mlp=mlp) for _ in range(layers)),
        tie_word_embeddings=False,
        max_position_embeddings=32768,
        dtypes=WeightDtypes(),
    )


def tables_of(pool: Pool, *, layers: int, moe: bool, factor: float = 1.0) -> StepTables:
    p, knobs = pool.parallel, pool.scheduler
    split = p.layers_per_stage or tuple(layers // p.pp + (i < layers % p.pp) for i in range(p.pp))
    devices = pool.stage_devices or (pool.device,) * p.pp
    shares = np.array([n / layers / SPEED[d] for n, d in zip(split, devices, strict=True)]) * factor
    tokens = np.arange(knobs.max_num_batched_tokens + 1, dtype=float)
    padded = np.where(tokens < 64, np.ceil(tokens / 8) * 8, tokens)
    dense = (4e-3 + 4e-5 * padded) / p.tp + (4e-4 if p.tp > 1 else 0.0)
    total = np.arange(knobs.max_num_batched_tokens * p.dp + 1, dtype=float)
    experts = (6e-3 * (1 - np.exp(-total / 8)) + 2e-5 * total) / (p.tp * p.dp) + 2e-4 * (p.tp * p.dp > 1)
    knots = np.array([0.0, 64.0, 256.0, 1024.0, 4096.0, 65536.0])
    decode = 1e-7 * np.arange(knobs.max_num_seqs + 1)[:, None] * (knots + 20 * np.sqrt(knots))[None, :] / p.tp
    rate = 2e-9 * (1 + 4 / (1 + np.arange(16)))[:, None] * np.ones(16)[None, :] / p.tp
    tables = StepTables(
        token_s=shares[:, None] * dense[None, :],
        shared_s=shares[:, None] * (experts if moe else 0 * experts)[None, :],
        decode_s=shares[:, None, None] * decode[None],
        kv_knots=knots,
        prefill_rate=shares[:, None, None] * rate[None],
        prefill_step=1.0,
        head_s=factor * (2e-4 + 1e-6 * np.arange(knobs.max_num_seqs * p.dp + 1)),
        host_s=np.full(knobs.max_num_seqs + 1, 3e-4 * factor),
        host_overlapped=False,
        p2p_s=np.full(knobs.max_num_batched_tokens + 1, 1e-4 if p.pp > 1 else 0.0),
        token_j=0.05 * total,
        attention_w=100.0,
        idle_w=50.0 * p.devices,
    )
    return tables if pool.overlap.off else overlapped(tables, p.dp)


def overlapped(tables: StepTables, dp: int) -> StepTables:
    """An overlap that saves now more, now less than nothing, up to 40% of a step."""
    shape = (*tables.token_s.shape, len(DECODE_SHARES) + 1, len(PREFILL_SHARES) + 1)
    gain = 0.4 * np.sin(np.arange(np.prod(shape))).reshape(shape)
    base_s = tables.token_s[0] + tables.shared_s[0, ::dp]
    return replace(tables, gain=gain, leap_s=leap_table(tables.decode_s[0], gain[0], base_s))


def compile_pool(plan: Plan, pool: Pool, *, arch: ModelArchitecture, weights: float = 3000.0) -> EngineSpec:
    """Memory in tokens: weights take `weights` over the replica's devices, the rest holds KV."""
    p = pool.parallel
    devices = pool.stage_devices or (pool.device,) * p.pp
    layers = len(arch.layers)
    split = p.layers_per_stage or tuple(layers // p.pp + (i < layers % p.pp) for i in range(p.pp))
    room = min(
        (MEMORY_TOKENS[d] * p.tp - weights * n / layers) * layers / n for d, n in zip(devices, split, strict=True)
    )
    if room < 16:
        raise InfeasibleError("memory", f"weights leave {room:.0f} tokens", "use more devices a replica")
    moe = isinstance(arch.layers[0].mlp, MoeMlp)
    nominal, lower, upper = (tables_of(pool, layers=layers, moe=moe, factor=f) for f in (1.0, 0.9, 1.2))
    return EngineSpec(
        tables=nominal,
        lower=lower,
        upper=upper,
        scheduler=pool.scheduler,
        block_size=16,
        num_blocks=int(room // 16),
        watermark_blocks=0,
        prefix_caching=pool.kv.prefix_caching,
        dp=p.dp,
        pp=p.pp,
        devices=p.devices,
        max_model_len=32768,
        memory=MemoryBudget(
            total_bytes=1.0,
            usable_bytes=1.0,
            weight_bytes=0.0,
            activation_bytes=0.0,
            graph_bytes=0.0,
            kv_bytes=1.0,
            kv_bytes_per_block=1.0,
            state_bytes_per_sequence=0.0,
        ),
        provenance={"gemm": "roofline"},
    )


def backend(*, fast: int = 4, slow: int = 0, moe: bool = False, weights: float = 3000.0, layers: int = 8) -> Backend:
    arch = architecture(moe=moe, layers=layers)
    groups = [
        DeviceGroup(device=name, nodes=((1, n),), usd_per_hour=PRICE[name])
        for name, n in (("fast", fast), ("slow", slow))
        if n
    ]
    return Backend(
        architecture=arch,
        groups=tuple(groups),
        compile=lambda plan, pool: compile_pool(plan, pool, arch=arch, weights=weights),
        simulate=lambda engines, workload, router: simulate_engines(engines, workload, router=router),
        metrics=serving_metrics,
        attainment=slo_attainment,
    )


def workload(
    *, n: int = 40, inputs: int = 200, outputs: int = 20, concurrency: int = 0, rate: float = 0.0, seed: int = 0
) -> Workload:
    rng = np.random.default_rng(seed)
    arrival = np.cumsum(rng.exponential(1 / rate, n)) if rate else np.zeros(n)
    return make_workload(
        arrival,
        rng.integers(max(1, inputs // 2), inputs + 1, n).astype(np.int32),
        rng.integers(max(1, outputs // 2), outputs + 1, n).astype(np.int32),
        max_concurrency=concurrency,
    )


def question(work: Workload, **changes: object) -> Question:
    space = Space(max_num_seqs=(32,), max_num_batched_tokens=(128, 512))
    return Question(**{"model": "toy", "devices": "4xfast", "workload": work, "space": space, **changes})
