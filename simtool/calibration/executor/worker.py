"""RankWorker: one rank's share of a step, from a batch to hidden states or sampled tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from simtool.calibration.executor.batch import StepBatch
from simtool.calibration.executor.decoder import Decoder, Hidden
from simtool.calibration.executor.host_memory import check_host_memory
from simtool.calibration.executor.inputs import StepInputs
from simtool.calibration.executor.memory_error import memory_told
from simtool.calibration.executor.mixture import Mixture
from simtool.calibration.executor.nano_batches import cut, joined_inputs
from simtool.calibration.executor.offloaded_experts import OffloadedExperts
from simtool.calibration.executor.options import ExecutorOptions
from simtool.calibration.executor.ranks import Ranks
from simtool.calibration.executor.scheduled import scheduled_parts
from simtool.calibration.executor.step import Step
from simtool.calibration.executor.support import check_supported
from simtool.calibration.executor.timer import FamilyTimer
from simtool.calibration.kernels.memory import likeliest
from simtool.calibration.profiling.cpu_setup import keep_freed_memory
from simtool.errors import InputError
from simtool.models.architecture import ModelArchitecture


class RankWorker:
    """The decoder of one rank. InputError for what cannot be executed, InfeasibleError where memory is short."""

    def __init__(self, arch: ModelArchitecture, ranks: Ranks, options: ExecutorOptions, timer: FamilyTimer) -> None:
        check_supported(arch, ranks.parallel, options)
        check_host_memory(arch, ranks.parallel, options)
        if options.device == "cuda" and not torch.cuda.is_available():
            raise InputError("cuda", "is not there", "cpu, or a torch that sees the GPU")
        if options.device == "cpu":  # as profiling does, so that both time alike
            torch.set_num_threads(1)
            keep_freed_memory()
        self.ranks = ranks
        self.timer = timer
        self._overlap, self._schedule = options.overlap, options.schedule
        self._routes: list[torch.Tensor] | None = [] if options.record_routing else None
        with torch.inference_mode(), memory_told("weights and KV cache"):
            self.decoder = Decoder(arch, ranks, options)

    def inputs(self, batches: Sequence[StepBatch]) -> StepInputs:
        """Of this rank's batch; the others' say how many rows the experts see."""
        with torch.inference_mode():
            return joined_inputs(self._parts(batches), self.ranks.place.dp_rank, self.decoder.layout)

    def _parts(self, batches: Sequence[StepBatch]) -> list[list[StepBatch]]:
        """The step's nano-batches."""
        if self._schedule is None:
            return cut(batches, self._overlap)
        return scheduled_parts(batches, self._schedule, self.decoder.layout.block_size)

    def run(self, inputs: StepInputs, hidden: Hidden | None) -> Hidden:
        """Through this rank's layers."""
        with torch.inference_mode(), memory_told("a step's activations"):
            step = Step(inputs=inputs, timer=self.timer, routes=self._routes)
            return self.decoder.run_parts(step, hidden) if inputs.parts else self.decoder.run(step, hidden)

    def sample(self, inputs: StepInputs, hidden: Hidden) -> torch.Tensor:
        """The likeliest next token of each slot that samples, int64[samples]."""
        with torch.inference_mode(), memory_told("a step's logits"):
            if not len(inputs.sampled):
                return inputs.sampled
            logits = self.decoder.logits(hidden, Step(inputs=inputs, timer=self.timer))
            return self.timer.run("sampling", likeliest, logits)

    def taken_routes(self) -> torch.Tensor | None:
        """Experts that the tokens since the last call chose, int16[tokens, layers, top_k]; None if nobody asked."""
        if not self._routes:
            return None
        routes = torch.stack(self._routes, dim=1).to(torch.int16)
        self._routes.clear()
        return routes

    def expert_counts(self) -> NDArray[np.int64] | None:
        """int64[layers, 2]: hits and misses of offloaded experts so far; None where none are."""
        counts = [(store.hits, store.misses) for store in self._offloaded()]
        return np.array(counts, np.int64) if counts else None

    def forget_experts(self) -> None:
        """Offloaded experts leave the device, and their counts begin anew."""
        for store in self._offloaded():
            store.forget()

    def _offloaded(self) -> list[OffloadedExperts]:
        stores = [layer.mlp.experts for layer in self.decoder.layers if isinstance(layer.mlp, Mixture)]
        return [store for store in stores if isinstance(store, OffloadedExperts)]
