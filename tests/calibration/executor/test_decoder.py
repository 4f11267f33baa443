"""What the executor samples is what a plain forward pass over the whole sequence samples."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the executor runs on torch")

from simtool.calibration.executor.batch import StepBatch  # noqa: E402
from simtool.calibration.executor.options import ExecutorOptions  # noqa: E402
from simtool.calibration.executor.ranks import alone  # noqa: E402
from simtool.calibration.executor.runner import TorchRunner  # noqa: E402
from simtool.calibration.executor.step import Step  # noqa: E402
from simtool.calibration.executor.timer import FamilyTimer  # noqa: E402
from simtool.calibration.executor.worker import RankWorker  # noqa: E402
from tests.calibration.executor.models import GQA, MODELS, MOE, model  # noqa: E402
from tests.calibration.executor.reference import Reference  # noqa: E402
from tests.calibration.executor.serving import BLOCK, Request, next_batch, prompts, requests, serve, take  # noqa: E402

BLOCKS, COUNT = 64, 5
OPTIONS = ExecutorOptions(num_blocks=BLOCKS, block_size=BLOCK)
TOLERANCE = 1e-4  # of fp32 logits of size 1..4 against float64


def served(arch, all_prompts, *, options=OPTIONS, budget=16, count=COUNT):
    """Outputs of every prompt."""
    outputs, _ = serve(TorchRunner(arch, options), [requests(all_prompts, count, BLOCKS)], count, budget)
    return outputs[0]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_paged_chunked_batches_sample_what_a_plain_forward_does(name):
    arch, all_prompts = MODELS[name], prompts(4)
    reference = Reference(arch)
    assert served(arch, all_prompts) == [reference.generate(prompt, COUNT) for prompt in all_prompts]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_logits_agree_to_a_ten_thousandth(name):
    """Prefill in two chunks beside another request's decode."""
    arch = MODELS[name]
    worker = RankWorker(arch, alone(), OPTIONS, FamilyTimer(on=False))
    first, second = prompts(2, seed=3, longest=30)
    one, two = Request(0, first, [9, 2, 33, 4, 8, 7, 1, 0]), Request(1, second, [12, 11, 60, 13, 14, 20, 21, 22])
    reference, seen = Reference(arch), []
    for _ in range(6):
        batch, pairs = next_batch([one, two], 3, 9)
        inputs = worker.inputs([batch])
        hidden = worker.run(inputs, None)
        with torch.inference_mode():
            logits = worker.decoder.logits(hidden, Step(inputs=inputs, timer=worker.timer))
        wanted = [reference.logits((r.prompt + r.out)[: r.done + s.new])[-1] for r, s in pairs if s.samples]
        if wanted:
            torch.testing.assert_close(logits.double(), torch.stack(wanted), rtol=0.0, atol=TOLERANCE)
            seen.append(len(wanted))
        take(pairs, logits.argmax(dim=-1).numpy())
    assert 2 in seen  # both were sampled in one step


def test_chunks_of_any_size_give_the_same_tokens():
    arch, all_prompts = MODELS["mla"], prompts(3, seed=1)
    whole = served(arch, all_prompts, budget=1000)
    assert [served(arch, all_prompts, budget=budget) for budget in (3, 7)] == [whole, whole]


def test_the_order_of_a_batch_does_not_matter():
    arch, all_prompts = MODELS["moe"], prompts(4, seed=2)
    assert served(arch, all_prompts[::-1]) == served(arch, all_prompts)[::-1]


@pytest.mark.parametrize("name", ["gqa", "mla"])
def test_a_prefix_in_shared_blocks_is_as_good_as_ones_own(name):
    """The second request's table begins with the first's blocks, which are written in the very same step."""
    arch, prompt = MODELS[name], prompts(1, seed=5, longest=30)[0][:11]
    prompt = prompt + [1] * (11 - len(prompt))
    other = [*prompt[:8], 7, 7, 9]
    owner = Request(0, prompt, [3, 17, 5, 6])
    sharer = Request(1, other, [3, 17, 40, 41], done=8)
    alone_served = served(arch, [prompt, other])
    outputs, _ = serve(TorchRunner(arch, OPTIONS), [[owner, sharer]], COUNT, 100)
    assert outputs[0] == alone_served


def test_weights_depend_on_the_seed_alone():
    arch, all_prompts = MODELS["gqa"], prompts(2)
    other = served(arch, all_prompts, options=replace(OPTIONS, seed=1))
    assert other == [Reference(arch, 1).generate(prompt, COUNT) for prompt in all_prompts]
    assert other != served(arch, all_prompts)


@pytest.mark.parametrize("name", ["moe", "mla"])
def test_bf16_runs_near_fp32(name):
    """Logits of one prefill within 0.2 of fp32's, whose spread is 1: 8 bits over a few layers."""
    found = {}
    for dtype in ("fp32", "bf16"):
        worker = RankWorker(MODELS[name], alone(), replace(OPTIONS, dtype=dtype), FamilyTimer(on=False))
        batch, _ = next_batch(requests(prompts(1, seed=8), 1, BLOCKS), 1, 100)
        inputs = worker.inputs([batch])
        with torch.inference_mode():
            hidden = worker.run(inputs, None)
            found[dtype] = worker.decoder.logits(hidden, Step(inputs=inputs, timer=worker.timer)).float()
    assert float((found["bf16"] - found["fp32"]).abs().mean()) < 0.2
    assert len(served(MODELS[name], prompts(2), options=replace(OPTIONS, dtype="bf16"))[0]) == COUNT


def test_time_is_told_by_family():
    arch = MODELS["moe"]
    _, outcomes = serve(TorchRunner(arch, OPTIONS), [requests(prompts(3), 3, BLOCKS)], 3, 100)
    first, last = outcomes[0], outcomes[-1]
    assert set(first.family_s) == {"embedding", "gemm", "moe", "attention_prefill", "elementwise", "sampling"}
    assert set(last.family_s) == set(first.family_s) - {"attention_prefill"} | {"attention_decode"}
    for outcome in outcomes:
        assert 0 < sum(outcome.family_s.values()) + outcome.host_s <= outcome.seconds
    untimed = TorchRunner(arch, replace(OPTIONS, timed=False))
    _, outcomes = serve(untimed, [requests(prompts(1), 1, BLOCKS)], 1, 100)
    assert outcomes[0].family_s == {}


def test_an_empty_batch_has_no_tokens():
    runner = TorchRunner(MODELS["gqa"], OPTIONS)
    runner.submit(0, [StepBatch()])
    assert runner.collect(0).tokens[0].tolist() == []


def test_nested_calls_count_once():
    clock = iter(np.arange(10.0))
    timer = FamilyTimer(on=True, read=lambda: float(next(clock)))
    timer.run("outer", lambda: timer.run("inner", lambda: None))
    assert timer.taken() == {"outer": 2.0, "inner": 1.0}
    assert timer.taken() == {}


def test_experts_of_one_kind_need_no_shared_part():
    arch = model(GQA, [replace(MOE, shared_intermediate_size=0, gated=False)])
    prompt = prompts(1, seed=4)
    assert served(arch, prompt) == [Reference(arch).generate(prompt[0], COUNT)]
