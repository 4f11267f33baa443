"""The executor runs the GEMMs that the lowering lists and holds the weights that the memory model counts."""

from collections import Counter

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the executor runs on torch")

from types import SimpleNamespace  # noqa: E402

from simtool.calibration.executor.decoder import Decoder  # noqa: E402
from simtool.calibration.executor.graphs import Captured, DecodeGraphs  # noqa: E402
from simtool.calibration.executor.host_memory import replica_bytes  # noqa: E402
from simtool.calibration.executor.linear import Linear  # noqa: E402
from simtool.calibration.executor.options import ExecutorOptions  # noqa: E402
from simtool.calibration.executor.ranks import Group, Ranks, alone, place_of  # noqa: E402
from simtool.calibration.executor.timer import FamilyTimer  # noqa: E402
from simtool.calibration.executor.worker import RankWorker  # noqa: E402
from simtool.models.lowering import lower  # noqa: E402
from simtool.models.memory import weight_bytes_per_device  # noqa: E402
from simtool.models.operators import StepBatch as LoweredBatch  # noqa: E402
from simtool.plan import ExpertOffload, Parallel  # noqa: E402
from tests.calibration.executor.models import MODELS  # noqa: E402
from tests.calibration.executor.serving import BLOCK, Request, next_batch, prompts, requests  # noqa: E402

BLOCKS = 64
OPTIONS = ExecutorOptions(num_blocks=BLOCKS, block_size=BLOCK)
DECODES, CONTEXT, NEW, EARLIER = 3, 7, 5, 8


def mixed_step():
    """Three decodes, and a chunk of five tokens after eight others that ends its prompt."""
    rows = []
    for number in range(DECODES):
        rows.append(Request(number, prompts(1)[0][:1] * CONTEXT, range(4 * number, 4 * number + 4), done=CONTEXT))
        rows[-1].out = [5]
    rows.append(Request(9, [1] * (EARLIER + NEW), range(20, 26), done=EARLIER))
    return next_batch(rows, 4, 100)[0]


def lowered(arch, parallel=None):
    def column(value):
        return np.array([float(value)])

    batch = LoweredBatch(
        prefill_tokens=column(NEW),
        prefill_requests=column(1),
        prefill_context=column(EARLIER),
        decode_requests=column(DECODES),
        decode_kv_tokens=column(DECODES * (CONTEXT + 1)),
        total_tokens=column(DECODES + NEW),
        sampled=column(DECODES + 1),
    )
    return lower(arch, parallel or Parallel(), 0, batch)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_gemms_of_a_step_are_those_of_the_lowering(name, monkeypatch):
    arch, ran = MODELS[name], Counter()
    call = Linear.__call__

    def noted(self, x):
        ran[(x.shape[0], *self._weight.shape)] += 1
        return call(self, x)

    monkeypatch.setattr(Linear, "__call__", noted)
    worker = RankWorker(arch, alone(), OPTIONS, FamilyTimer(on=True))
    inputs = worker.inputs([mixed_step()])
    worker.sample(inputs, worker.run(inputs, None))
    wanted = Counter()
    for operator in lowered(arch):
        if operator.family == "gemm":
            wanted[tuple(int(operator.dims[dim][0]) for dim in ("m", "n", "k"))] += operator.count
    assert ran == wanted
    assert set(worker.timer.taken()) == {operator.family for operator in lowered(arch)}


def held_bytes(thing, seen):
    """Bytes of all tensors that are reachable from `thing`."""
    if id(thing) in seen:
        return 0
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        return thing.numel() * thing.element_size()
    if isinstance(thing, list | tuple):
        return sum(held_bytes(part, seen) for part in thing)
    if type(thing).__module__.startswith("simtool.calibration.executor"):
        return sum(held_bytes(part, seen) for part in vars(thing).values()) if hasattr(thing, "__dict__") else 0
    return 0


def ranks_of(rank, parallel):
    """A rank whose groups have nobody: enough to build its shard."""
    place = place_of(rank, parallel)
    experts = Group(parallel.tp * parallel.dp, place.dp_rank * parallel.tp + place.tp_rank)
    tensor, data = Group(parallel.tp, place.tp_rank), Group(parallel.dp, place.dp_rank)
    return Ranks(parallel=parallel, place=place, tensor=tensor, data=data, experts=experts)


@pytest.mark.parametrize("name", ["gqa", "tied", "moe"])
@pytest.mark.parametrize(
    "parallel",
    [
        Parallel(),
        Parallel(tp=2),
        Parallel(pp=2),
        Parallel(tp=4, ep=2),
        Parallel(dp=2, ep=2),
        Parallel(tp=2, dp=2, ep=4),
    ],
)
def test_a_rank_holds_the_weights_that_the_memory_model_counts(name, parallel):
    """To half a percent: the vocabulary is not cut evenly, and head norms are repeated."""
    arch = MODELS[name]
    if name != "moe" and parallel.ep > 1:
        pytest.skip("no experts")
    for rank in (0, parallel.devices - 1):
        ranks = ranks_of(rank, parallel)
        decoder = Decoder(arch, ranks, OPTIONS)
        caches = sum(held_bytes(layer.mixer.caches, set()) for layer in decoder.layers)
        held = held_bytes(decoder, set()) - caches
        assert held == pytest.approx(weight_bytes_per_device(arch, parallel, ranks.place.stage), rel=5e-3)


def test_the_memory_check_counts_what_is_held():
    arch = MODELS["gqa"]
    assert held_bytes(Decoder(arch, alone(), OPTIONS), set()) == pytest.approx(
        replica_bytes(arch, Parallel(), OPTIONS), rel=5e-3
    )


class Replayed:
    """In a CUDA graph's place: runs the step again on the inputs that it was captured with."""

    def __init__(self, worker, inputs, tokens):
        self.worker, self.inputs, self.tokens = worker, inputs, tokens

    def replay(self):
        hidden = self.worker.run(self.inputs, None)
        self.tokens.copy_(self.worker.sample(self.inputs, hidden))


@pytest.mark.parametrize("name", ["gqa", "mla_direct"])
def test_padded_decodes_sample_what_unpadded_ones_do(name, monkeypatch):
    """Padding, table width and reuse of a captured batch, with a graph's stand-in: there is no GPU here."""
    worker = RankWorker(MODELS[name], alone(), OPTIONS, FamilyTimer(on=False))
    graphs = DecodeGraphs(
        worker,
        SimpleNamespace(
            capture_sizes=(4, 1), block_size=BLOCK, num_blocks=BLOCKS, offload=ExpertOffload(), device="cpu"
        ),
    )
    captures = []

    def capture(inputs):
        captures.append(len(inputs.ids))
        tokens = torch.zeros(len(inputs.sampled), dtype=torch.int64)
        return Captured(graph=Replayed(worker, inputs, tokens), inputs=inputs, tokens=tokens)

    monkeypatch.setattr(graphs, "_capture", capture)
    running = requests(prompts(3), 6, BLOCKS)
    while True:
        batch, pairs = next_batch(running, 6, 1000)
        if not batch.slots:
            break
        inputs = worker.inputs([batch])
        plain = worker.sample(inputs, worker.run(inputs, None))
        if graphs.takes(batch):
            assert graphs.run(batch).tolist() == plain.tolist()
        else:
            assert batch.prefills
        for (request, slot), token in zip(pairs, plain.tolist(), strict=True):
            request.advance(slot, token)
    assert captures == [4]
