"""What the executor's own host work takes: measured on models with the layers of the served ones, but tiny kernels."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.executor.options import ExecutorOptions
from simtool.calibration.executor.real_clock import RealClock
from simtool.calibration.executor.starting import start_runner
from simtool.calibration.measured_set import HostTime
from simtool.errors import InputError
from simtool.models.architecture import Attention, DenseMlp, LatentAttention, Layer, ModelArchitecture, MoeMlp
from simtool.plan import KvPolicy, Parallel, Pool, Scheduler
from simtool.simulator.blank import blank_engine
from simtool.simulator.routing import ROUND_ROBIN
from simtool.simulator.setup import build_state
from simtool.simulator.stepped import SteppedCluster
from simtool.workload import Workload, make_workload

REQUESTS, PROMPT, LONGEST = 16, 8, 64  # the batch goes from 16 requests to one
HIDDEN, HEADS, HEAD_SIZE = 64, 4, 16
_BLOCK = 16


def engine_times(device: str, models: Sequence[ModelArchitecture]) -> list[HostTime]:
    """step_base and step_per_request of the executor over `models`; none where it runs none of them."""
    columns = []
    for model in models:
        try:
            columns.append(_host_seconds(device, tiny(model)))
        except InputError:  # a part that the executor does not run
            continue
    if not columns:
        return []
    requests, seconds = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    per_request_s, base_s = np.polyfit(requests, seconds, 1)
    spread = float(np.std(seconds - base_s - per_request_s * requests) / np.mean(seconds))
    times = (("step_base", base_s), ("step_per_request", per_request_s))
    return [HostTime(name=name, seconds=max(float(value), 0.0), spread=spread) for name, value in times]


def tiny(arch: ModelArchitecture) -> ModelArchitecture:
    """The same layers in the same number, so small that their kernels take next to nothing."""
    layers = tuple(_tiny_layer(layer) for layer in arch.layers)
    return replace(arch, hidden_size=HIDDEN, vocab_size=128, layers=layers, final_norm_params=HIDDEN, mtp_layers=())


def _tiny_layer(layer: Layer) -> Layer:
    mixer, mlp = layer.mixer, layer.mlp
    if isinstance(mixer, Attention):
        heads: dict[str, Any] = {"num_heads": HEADS, "num_kv_heads": 2, "head_dim": HEAD_SIZE, "v_head_dim": HEAD_SIZE}
        mixer = replace(mixer, **heads, extra_params=0)
    elif isinstance(mixer, LatentAttention):
        sizes: dict[str, Any] = {"kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16}
        mixer = replace(mixer, **sizes, num_heads=HEADS, q_lora_rank=32 if mixer.q_lora_rank else 0, extra_params=0)
    if isinstance(mlp, DenseMlp):
        mlp = replace(mlp, intermediate_size=HIDDEN)
    elif isinstance(mlp, MoeMlp):
        shared = HIDDEN if mlp.shared_intermediate_size else 0
        mlp = replace(mlp, intermediate_size=32, shared_intermediate_size=shared)
    return replace(layer, mixer=mixer, mlp=mlp, norm_params=2 * HIDDEN)


def _host_seconds(device: str, arch: ModelArchitecture) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(requests, host seconds) of each decode step of a run whose batch shrinks."""
    workload = _shrinking()
    scheduler = Scheduler(max_num_seqs=REQUESTS, max_num_batched_tokens=REQUESTS * PROMPT, async_scheduling=False)
    pool = Pool(device="none", scheduler=scheduler, kv=KvPolicy(block_size=_BLOCK))
    blocks = REQUESTS * -(-(PROMPT + LONGEST) // _BLOCK)
    state = build_state([blank_engine(pool, num_blocks=blocks, max_model_len=4096)], workload, exact_steps=True)
    options = ExecutorOptions(num_blocks=blocks, block_size=_BLOCK, device="cuda" if device == "cuda" else "cpu")
    runner = start_runner(arch, Parallel(), options)
    read = time.thread_time if device == "cpu" else time.perf_counter
    with closing(runner):
        clock = RealClock(state, workload, [runner], vocab_size=arch.vocab_size, seed=0, read=read)
        SteppedCluster(state, workload, ROUND_ROBIN, clock).run()
    decodes = [step for step in clock.steps if not step.batches[0].prefills]
    requests = np.array([float(len(step.batches[0].decodes)) for step in decodes])
    return requests, np.array([step.host_s for step in decodes])


def _shrinking() -> Workload:
    """All at once, one request leaving every few steps."""
    outputs = np.linspace(LONGEST // REQUESTS, LONGEST, REQUESTS).round().astype(np.int32)
    return make_workload(np.zeros(REQUESTS), np.full(REQUESTS, PROMPT, np.int32), outputs)
