"""StepCosts: a replica's steps priced on grids, whatever its scheduler's knobs. Compiled into StepTables per plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from simtool.hardware.cost import WEAKEST_LAST, CostModel, Provenance
from simtool.hardware.device import Device
from simtool.hardware.energy import dynamic_joules
from simtool.models.architecture import ModelArchitecture
from simtool.models.lowering import head_operators, token_operators, transfer_operators
from simtool.models.lowering_attention import decode_operators, prefill_operators
from simtool.models.lowering_mlp import expert_operators
from simtool.models.lowering_shard import Shard, make_shard
from simtool.models.operators import Operator
from simtool.plan import Overlap, Parallel
from simtool.simulator.grids import StepGrids, step_grids

Array = NDArray[np.float64]

NOMINAL, LOWER, UPPER = range(3)  # first axis of every priced array
# Prefill attention of a chunk is priced as its share of a launch that fills vLLM's default token budget: all chunks of
# a step run in one variable-length kernel, so short chunks do not each pay its latency.
_LAUNCH_TOKENS = 2048.0
# Attention of decodes, and of prompts, over itself and the rest of the step: where an overlap's gain is tabulated.
DECODE_SHARES = np.linspace(0.0, 1.0, 9)
PREFILL_SHARES = np.linspace(0.0, 1.0, 5)
REFERENCE = (32, 1024, 1024)  # decodes, their KV length, tokens of a prompt: the step whose provenance is reported


@dataclass(frozen=True, slots=True, kw_only=True)
class StageHardware:
    """What a pipeline stage runs on: the device, what its operators cost, and how many devices share a node."""

    device: Device
    cost_model: CostModel
    devices_per_node: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCosts:
    """Seconds of one stage on its grids; the first axis is nominal, lower, upper.

    token, transfer [3, T], experts [3, A], decode [3, D, K], prefill [3, Q, C] (a (query, key) pair), head [3, N].
    token_j [T], experts_j [A]: dynamic joules of one device. attention_w: its dynamic watts in decode attention.
    launches: kernels of a decode step. mixed_decode: decode attention beside prefill
    chunks over what it takes alone. provenance: operator family → weakest evidence at the reference step
    (REFERENCE); `explain_step` tells it for any step.
    """

    token: Array
    experts: Array
    decode: Array
    prefill: Array
    head: Array
    transfer: Array
    token_j: Array
    experts_j: Array
    attention_w: float
    launches: int
    provenance: dict[str, Provenance]
    mixed_decode: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlapGain:
    """What an overlap saves of one stage's steps, as a share of each (negative: it costs).

    saved [3, T, U, V]: at `tokens` [T] of a rank; U: a step without decodes, then the knots DECODE_SHARES; V: without
    prompts, then PREFILL_SHARES. The first axis is nominal, lower, upper: at the lower end of a step's time its tasks
    overlap as well as they can at all, at the upper one they run one by one. small: the same for steps of fewer tokens
    than the overlap asks for (None: they save and cost nothing).
    """

    tokens: Array
    saved: Array
    small: Array | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCosts:
    """Costs of all stages of a (parallel, KV dtype) on given hardware, up to max_tokens, max_seqs and max_context.

    Pools that differ in replicas, scheduler knobs or KV policy share one value; the planner holds it. gains: what
    `overlap` saves, a stage each (empty: nothing overlaps).
    """

    arch: ModelArchitecture
    parallel: Parallel
    kv_dtype: str
    stage_devices: tuple[str, ...]
    max_tokens: int
    max_seqs: int
    max_context: int
    grids: StepGrids
    stages: tuple[StageCosts, ...]
    overlap: Overlap = field(default_factory=Overlap)
    gains: tuple[OverlapGain, ...] = ()


def price_steps(
    arch: ModelArchitecture,
    parallel: Parallel,
    stages: Sequence[StageHardware],
    *,
    kv_dtype: str = "auto",
    max_tokens: int = 2048,
    max_seqs: int = 256,
    max_context: int = 0,
) -> StepCosts:
    """Price every part of a step on geometric grids, one price() call an operator and part.

    stages: hardware of each pipeline stage. max_tokens: of one rank's step. max_context 0: the model's. Raises
    InputError where the model cannot be cut that way.
    """
    context = max_context or arch.max_position_embeddings
    grids = step_grids(max_tokens=max_tokens, max_seqs=max_seqs, max_context=context, dp=parallel.dp)
    shards = stage_shards(arch, parallel, stages, kv_dtype=kv_dtype)
    return StepCosts(
        arch=arch,
        parallel=parallel,
        kv_dtype=arch.kv_dtype if kv_dtype == "auto" else kv_dtype,
        stage_devices=tuple(found.device.name for found in stages),
        max_tokens=max_tokens,
        max_seqs=max_seqs,
        max_context=context,
        grids=grids,
        stages=_price_stages(shards, stages, grids),
    )


def stage_shards(
    arch: ModelArchitecture,
    parallel: Parallel,
    stages: Sequence[StageHardware],
    *,
    kv_dtype: str = "auto",
) -> list[Shard]:
    """What one device of each stage holds, on the hardware of that stage. InputError where the model cannot be cut."""
    return [
        make_shard(
            arch,
            parallel,
            stage,
            kv_dtype=kv_dtype,
            devices_per_node=found.devices_per_node,
        )
        for stage, found in enumerate(stages)
    ]


def _price_stages(shards: Sequence[Shard], stages: Sequence[StageHardware], grids: StepGrids) -> tuple[StageCosts, ...]:
    """Costs of each stage; inner stages are often alike and are priced once."""
    known: dict[tuple[object, ...], StageCosts] = {}
    priced: list[StageCosts] = []
    for shard, found in zip(shards, stages, strict=True):
        key = (found.device.name, shard.mixers, shard.mlps, shard.first, shard.last, *shard.spans)
        if key not in known:
            known[key] = _price_stage(shard, found, grids)
        priced.append(known[key])
    return tuple(priced)


def _price_stage(shard: Shard, hardware: StageHardware, grids: StepGrids) -> StageCosts:
    tokens, all_tokens, decodes, kv_knots = grids.tokens, grids.all_tokens, grids.decodes, grids.kv_knots
    token, token_j = priced(token_operators(shard, tokens), hardware, tokens)
    experts, experts_j = priced(expert_operators(shard, all_tokens), hardware, all_tokens)
    batch, length = (grid.ravel() for grid in np.meshgrid(decodes, np.maximum(kv_knots, 1.0), indexing="ij"))
    decode, decode_j = priced(decode_operators(shard, batch, length), hardware, batch)
    new, context = (grid.ravel() for grid in np.meshgrid(grids.queries, grids.contexts, indexing="ij"))
    together = np.maximum(1.0, _LAUNCH_TOKENS / new)
    prefill, _ = priced(prefill_operators(shard, together, new, context), hardware, new)
    prefill /= together * new * (context + (new + 1) / 2)
    head, _ = priced(head_operators(shard, decodes) if shard.last else [], hardware, decodes)
    transfer, _ = priced(transfer_operators(shard, tokens), hardware, tokens)
    launches, provenance = _reference(shard, hardware)
    busy_s = decode[NOMINAL].sum()
    return StageCosts(
        token=token,
        experts=experts,
        decode=_rising(decode.reshape(3, len(decodes), len(kv_knots)), axis=1),
        prefill=prefill.reshape(3, len(grids.queries), len(grids.contexts)),
        head=head,
        transfer=transfer,
        token_j=token_j,
        experts_j=experts_j,
        attention_w=float(decode_j.sum() / busy_s) if busy_s > 0 else 0.0,
        launches=launches,
        provenance=provenance,
        mixed_decode=_mixed_decode(shard, hardware),
    )


def _mixed_decode(shard: Shard, hardware: StageHardware) -> float:
    """Decode attention of the reference step where it has prefill chunks too, over what it takes without them."""
    requests, context = (np.array([float(value)]) for value in REFERENCE[:2])
    seconds = [
        priced(decode_operators(shard, requests, context, beside_prefill=beside), hardware, requests)[0][NOMINAL, 0]
        for beside in (np.zeros(1), np.ones(1))
    ]
    return float(seconds[1] / seconds[0]) if seconds[0] > 0 else 1.0


def _rising(priced: Array, axis: int) -> Array:
    """More requests never take less time. For attention only: libraries change to faster GEMM kernels as tokens grow.

    Llama-3.1-70B in FP8 on an H200 shows it end to end (docs/validation.md): 16 → 32 → 64 requests take 24.7, 33.2 and
    37.4 ms a token, and the GEMM table has the same bump at 32.
    """
    return np.asarray(np.maximum.accumulate(priced, axis=axis))


def priced(operators: Sequence[Operator], hardware: StageHardware, like: Array) -> tuple[Array, Array]:
    """(seconds [3, b], joules [b]) of all `operators` together, counts applied; zeros as long as `like` for none."""
    nominal, joules = np.zeros_like(like), np.zeros_like(like)
    below: dict[str, Array] = {}
    above: dict[str, Array] = {}
    for operator in operators:
        cost, family, count = hardware.cost_model.price(operator), operator.family, operator.count
        nominal += count * cost.seconds
        below[family] = below.get(family, 0.0) + count * (cost.seconds - cost.lower)
        above[family] = above.get(family, 0.0) + count * (cost.upper - cost.seconds)
        joules += count * dynamic_joules(operator, cost.seconds, hardware.device)
    return np.stack([nominal, nominal - quadrature(below), nominal + quadrature(above)]), joules


def _reference(shard: Shard, hardware: StageHardware) -> tuple[int, dict[str, Provenance]]:
    """(kernels of a decode step, family → weakest provenance) at the reference step."""
    requests, context, prompt = (np.array([float(value)]) for value in REFERENCE)
    operators = token_operators(shard, requests) + expert_operators(shard, requests * shard.parallel.dp)
    operators += decode_operators(shard, requests, context)
    if shard.last:
        operators += head_operators(shard, requests)
    launches = sum(operator.count * operator.launches for operator in operators)
    one = np.ones(1)
    operators += prefill_operators(shard, one, prompt, 0.0 * one) + transfer_operators(shard, requests)
    provenance: dict[str, Provenance] = {}
    for operator in operators:
        kind = hardware.cost_model.price(operator).provenance
        provenance[operator.family] = max(provenance.get(operator.family, kind), kind, key=WEAKEST_LAST.index)
    return launches, provenance


def quadrature(deviations: Mapping[str, Array]) -> Array | float:
    """Deviation of a sum over operator families: errors go together inside a family, independently between families."""
    return np.sqrt(sum((value**2 for value in deviations.values()), 0.0))
