"""DecodeGraphs: CUDA graphs of steps that only decode, padded to the captured batch sizes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from simtool.calibration.executor.batch import Slot, StepBatch
from simtool.calibration.executor.expert_store import groups_on
from simtool.calibration.executor.inputs import StepInputs, decode_tables, make_inputs
from simtool.calibration.executor.mixture import Mixture
from simtool.calibration.executor.options import ExecutorOptions
from simtool.calibration.executor.worker import RankWorker
from simtool.errors import InputError

FEWEST_PAGES = 16  # of a graph's block tables; they double from there


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """A graph, the inputs that it reads and the tokens that it writes."""

    graph: torch.cuda.CUDAGraph
    inputs: StepInputs
    tokens: torch.Tensor


class DecodeGraphs:
    """A graph a batch size and table width (a power of two of pages), captured when first needed."""

    def __init__(self, worker: RankWorker, options: ExecutorOptions) -> None:
        self._worker = worker
        self._sizes = tuple(sorted(options.capture_sizes))
        self._block_size, self._scratch = options.block_size, options.num_blocks
        self._captured: dict[tuple[int, int], Captured] = {}
        mixtures = any(isinstance(layer.mlp, Mixture) for layer in worker.decoder.layers)
        if mixtures and (not options.offload.off or not groups_on(options.device, worker.decoder.dtype)):
            hint = "no capture_sizes, or resident bf16 experts"
            raise InputError("CUDA graphs", "cannot hold a loop over experts that the routing decides", hint)

    def takes(self, batch: StepBatch) -> bool:
        """Whether the step only decodes and is no larger than the largest captured batch."""
        return not batch.prefills and 0 < len(batch.decodes) <= self._sizes[-1]

    def run(self, batch: StepBatch) -> torch.Tensor:
        """Tokens int64[samples] of a step. They are a copy: the next step overwrites the graph's own."""
        size = min(size for size in self._sizes if size >= len(batch.decodes))
        longest = max(slot.context + 1 for slot in batch.decodes)
        pages = FEWEST_PAGES
        while pages * self._block_size < longest:
            pages *= 2
        inputs = self._padded(batch, size, pages)
        if (size, pages) not in self._captured:
            self._captured[size, pages] = self._capture(inputs)
        captured = self._captured[size, pages]
        with torch.inference_mode():
            for name in ("ids", "slots", "cos", "sin", "tables", "mask"):
                getattr(captured.inputs, name).copy_(getattr(inputs, name))
            captured.graph.replay()
        samples = [row for row, slot in enumerate(batch.decodes) if slot.samples]
        return captured.tokens[torch.tensor(samples, dtype=torch.int64, device=captured.tokens.device)]

    def _padded(self, batch: StepBatch, size: int, pages: int) -> StepInputs:
        """The inputs of `size` decodes that all sample; those added write to the block that nobody is given."""
        one = Slot(
            request=-1,
            tokens=np.zeros(1, dtype=np.int64),
            context=0,
            blocks=np.array([self._scratch], dtype=np.int64),
            samples=True,
        )
        decodes = tuple(replace(slot, samples=True) for slot in batch.decodes)
        decodes += (one,) * (size - len(decodes))
        layout = self._worker.decoder.layout
        with torch.inference_mode():
            inputs = make_inputs(StepBatch(decodes=decodes), layout)
            tables, mask = decode_tables(decodes, layout, pages)
        return replace(inputs, tables=tables, mask=mask)

    def _capture(self, inputs: StepInputs) -> Captured:
        """Run once on a side stream, as capturing asks for, then capture."""
        worker = self._worker
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            worker.sample(inputs, worker.run(inputs, None))
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            tokens = worker.sample(inputs, worker.run(inputs, None))
        return Captured(graph=graph, inputs=inputs, tokens=tokens)
