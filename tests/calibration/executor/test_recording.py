"""Recorded routing: what a plain forward pass chooses, of every token that was computed; nothing without asking."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the executor runs on torch")

from simtool.calibration.executor.options import ExecutorOptions  # noqa: E402
from simtool.calibration.executor.runner import TorchRunner  # noqa: E402
from simtool.calibration.executor.step import Step  # noqa: E402
from simtool.errors import InputError  # noqa: E402
from simtool.models.routing.trace import needed  # noqa: E402
from simtool.plan import ExpertOffload  # noqa: E402
from tests.calibration.executor.models import MODELS  # noqa: E402
from tests.calibration.executor.reference import Reference  # noqa: E402
from tests.calibration.executor.serving import BLOCK, next_batch, prompts, requests, take  # noqa: E402

OPTIONS = ExecutorOptions(num_blocks=64, block_size=BLOCK, record_routing=True)
COUNT = 4


def recorded(name, options, budget):
    """(batch, routing) of every step, and who ran."""
    runner, running, steps = TorchRunner(MODELS[name], options), requests(prompts(3), COUNT, 64), []
    while any(len(request.out) < COUNT for request in running):
        batch, pairs = next_batch(running, COUNT, budget)
        runner.submit(0, [batch])
        outcome = runner.collect(0)
        take(pairs, outcome.tokens[0])
        steps.append((batch, outcome.routing))
    return runner, running, steps


@pytest.mark.parametrize("name", ["moe", "grouped_moe", "mla"])
@pytest.mark.parametrize("budget", [5, 100])
def test_recorded_experts_are_those_of_a_plain_forward_pass(name, budget):
    _, running, steps = recorded(name, OPTIONS, budget)
    reference = Reference(MODELS[name])
    truth = [reference.routing(request.prompt + request.out).numpy() for request in running]
    seen = 0
    for batch, routing in steps:
        assert routing.dtype == np.int16
        places = [(slot.request, slot.context + row) for slot in batch.slots for row in range(slot.new)]
        assert routing.tolist() == [truth[request][place].tolist() for request, place in places]
        seen += len(places)
    assert seen == sum(len(request.prompt) + COUNT - 1 for request in running)


@pytest.mark.parametrize("kept", [2, 3, 8])
def test_hits_of_offloaded_experts_are_those_of_a_plain_lru_on_the_recorded_routing(kept):
    runner, _, steps = recorded("moe", replace(OPTIONS, offload=ExpertOffload(policy="lru", slots=kept)), 20)
    hits = misses = 0
    caches = [[] for _ in range(steps[0][1].shape[1])]  # least recently used first
    for _, routing in steps:
        for cache, wanted in zip(caches, needed(routing, 8), strict=True):
            busy = np.flatnonzero(wanted).tolist()
            here = [expert for expert in busy if expert in cache]
            hits, misses = hits + len(here), misses + len(busy) - len(here)
            for expert in here + [expert for expert in busy if expert not in here]:
                if expert in cache:
                    cache.remove(expert)
                elif len(cache) == kept:
                    cache.pop(0)
                cache.append(expert)
    assert runner._worker.expert_counts().sum(axis=0).tolist() == [hits, misses]
    assert hits > 0


def test_nothing_is_kept_without_asking():
    _, _, steps = recorded("moe", replace(OPTIONS, record_routing=False), 100)
    assert {routing for _, routing in steps} == {None}
    assert Step.__dataclass_fields__["routes"].default is None
    _, _, steps = recorded("gqa", OPTIONS, 100)
    assert {routing for _, routing in steps} == {None}, "a model without experts has none to tell"


def test_a_cuda_graph_cannot_record():
    with pytest.raises(InputError, match="does not tell its routing"):
        replace(OPTIONS, device="cuda", capture_sizes=(1,))
