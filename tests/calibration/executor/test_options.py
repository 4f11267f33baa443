"""Offloading and overlap change no token; what cannot be executed is refused; memory that is short is told."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the executor runs on torch")

from simtool.calibration.executor.batch import Slot, StepBatch  # noqa: E402
from simtool.calibration.executor.memory_error import memory_told  # noqa: E402
from simtool.calibration.executor.nano_batches import cut  # noqa: E402
from simtool.calibration.executor.offloaded_experts import OffloadedExperts  # noqa: E402
from simtool.calibration.executor.options import ExecutorOptions  # noqa: E402
from simtool.calibration.executor.ranks import place_of, rank_of  # noqa: E402
from simtool.calibration.executor.runner import TorchRunner  # noqa: E402
from simtool.calibration.executor.support import check_supported  # noqa: E402
from simtool.calibration.executor.weights import Weights  # noqa: E402
from simtool.errors import InfeasibleError, InputError  # noqa: E402
from simtool.models.architecture import RecurrentMixer, SparseIndexer  # noqa: E402
from simtool.models.config import load_architecture  # noqa: E402
from simtool.models.reduced import reduced  # noqa: E402
from simtool.overlaps import STOCK  # noqa: E402
from simtool.plan import ExpertOffload, Overlap, Parallel  # noqa: E402
from tests.calibration.executor.models import DENSE, GQA, MLA, MODELS, MOE, model  # noqa: E402
from tests.calibration.executor.serving import BLOCK, prompts, requests, serve  # noqa: E402

BLOCKS, COUNT = 64, 6
OPTIONS = ExecutorOptions(num_blocks=BLOCKS, block_size=BLOCK)


def slot(request, new):
    return Slot(request=request, tokens=np.arange(new), context=0, blocks=np.arange(1), samples=True)


def outputs_of(runner):
    return serve(runner, [requests(prompts(3), COUNT, BLOCKS)], COUNT, 16)


@pytest.mark.parametrize("kept", [1, 4, 8, 100])
def test_offloaded_experts_compute_the_same_and_count_their_hits(kept, monkeypatch):
    """Hits and misses are those of a list that is kept in the order of use, the present experts being used first."""
    arch, needed = MODELS["moe"], []
    order = OffloadedExperts._order
    monkeypatch.setattr(
        OffloadedExperts, "_order", lambda self, busy: needed.append((id(self), list(busy))) or order(self, busy)
    )
    runner = TorchRunner(arch, replace(OPTIONS, offload=ExpertOffload(policy="lru", slots=kept)))
    found, outcomes = outputs_of(runner)
    assert found == outputs_of(TorchRunner(arch, OPTIONS))[0]
    hits = misses = 0
    caches = {}
    for layer, busy in needed:
        cache = caches.setdefault(layer, [])
        present = [expert for expert in busy if expert in cache]
        hits, misses = hits + len(present), misses + len(busy) - len(present)
        for expert in present + [expert for expert in busy if expert not in cache]:
            if expert in cache:
                cache.remove(expert)
            elif len(cache) >= kept:
                cache.pop(0)
            cache.append(expert)
    counts = np.sum([outcome.experts.sum(axis=0) for outcome in outcomes], axis=0)
    assert counts.tolist() == [hits, misses]
    runner.forget_experts()
    assert not runner._worker.expert_counts().any()
    assert hits > 0 or kept == 1
    if kept >= 8:
        assert misses <= 2 * 8  # each expert of both layers once
    assert all(outcome.family_s.get("copies", 0.0) >= 0 for outcome in outcomes)
    assert outcomes[0].family_s["copies"] > 0  # the first step finds nothing


def test_overlap_changes_nothing():
    uneven = replace(STOCK["nano"], nano_batches=(0.2, 0.5, 0.3))
    for name in ("moe", "mla", "gqa"):
        plain = outputs_of(TorchRunner(MODELS[name], OPTIONS))[0]
        for overlap in (STOCK["shared-experts"], STOCK["two-batch"], uneven):
            assert outputs_of(TorchRunner(MODELS[name], replace(OPTIONS, overlap=overlap)))[0] == plain


def test_a_cut_step_has_each_slot_once_in_order():
    batches = [
        StepBatch(decodes=tuple(slot(n, 1) for n in range(5)), prefills=tuple(slot(n, 7) for n in range(9, 12))),
        StepBatch(prefills=(slot(20, 3),)),
    ]
    parts = cut(batches, Overlap(nano_batches=(0.25, 0.75)))
    for rank, batch in enumerate(batches):
        assert tuple(one for part in parts for one in part[rank].decodes) == batch.decodes
        assert tuple(one for part in parts for one in part[rank].prefills) == batch.prefills
    assert [part[0].tokens for part in parts] == [8, 18]
    assert cut(batches, Overlap(nano_batches=(0.5, 0.5), min_prefill_tokens=27)) == [batches]
    assert cut(batches, Overlap()) == [batches]
    for changes in ({"offload": ExpertOffload(policy="lru", slots=2)}, {"record_routing": True}):
        with pytest.raises(InputError, match="one batch at a time"):
            replace(OPTIONS, overlap=STOCK["two-batch"], **changes)


def refusal(arch, options=OPTIONS, parallel=None):
    with pytest.raises(InputError) as caught:
        check_supported(arch, parallel or Parallel(), options)
    return str(caught.value)


def test_tokens_are_gathered():
    sends = Parallel(dp=2, ep=2, all2all_backend="deepep_low_latency")
    with pytest.raises(InputError, match="gathers all tokens"):
        check_supported(load_architecture("qwen3-30b-a3b"), sends, OPTIONS)


@pytest.mark.parametrize(
    ("mixer", "mlp", "named"),
    [
        (replace(GQA, window=128), DENSE, "attention windows"),
        (replace(GQA, extra_params=7), DENSE, "extra attention parameters"),
        (replace(GQA, output_gate=True), DENSE, "attention output gates"),
        (replace(GQA, v_head_dim=8), DENSE, "values of another width than keys"),
        (replace(MLA, indexer=SparseIndexer(num_heads=2, head_dim=8, topk=4)), DENSE, "sparse attention"),
        (GQA, replace(MOE, latent_size=32), "experts in a latent width"),
        (GQA, replace(MOE, dense_intermediate_size=32), "a dense MLP beside the experts"),
        (GQA, replace(DENSE, bias=True), "MLP biases"),
        (None, DENSE, "layers of attention or MLP alone"),
        (
            RecurrentMixer(
                kind="mamba2", num_heads=4, head_dim=16, state_elements=64, conv_elements=8, projections=((64, 64),)
            ),
            DENSE,
            r"recurrent mixers \(mamba2\)",
        ),
    ],
)
def test_a_part_that_is_not_executed_is_named(mixer, mlp, named):
    with pytest.raises(InputError, match=named):
        check_supported(model(mixer, [mlp]), Parallel(), OPTIONS)


def test_all_that_is_wrong_is_told_at_once():
    told = refusal(model(replace(GQA, window=8), [replace(MOE, latent_size=32), DENSE]))
    assert "attention windows" in told
    assert "latent width" in told


def test_dtypes_without_a_kernel_are_refused():
    wide = model(GQA, [DENSE, MOE])
    assert "fp8 weights on a CPU (--weight-dtype bf16, or a GPU)" in refusal(
        replace(wide, dtypes=replace(wide.dtypes, attention="fp8"))
    )
    assert "int4 weights" in refusal(replace(wide, dtypes=replace(wide.dtypes, mlp="int4")))
    assert "fp8 experts" in refusal(replace(wide, dtypes=replace(wide.dtypes, experts="fp8")))
    assert "no dtype of activations" in refusal(wide, replace(OPTIONS, dtype="fp8"))


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"num_blocks": 0}, "at least 1"),
        ({"block_size": 0}, "at least 1 token"),
        ({"offload": ExpertOffload(policy="lru")}, "at least 1"),
        ({"offload": ExpertOffload(policy="speculative", slots=2)}, "not executed"),
        ({"device": "tpu"}, "no such device"),
        ({"capture_sizes": (1,)}, "no CUDA graphs"),
    ],
)
def test_options_are_checked(wrong, rule):
    with pytest.raises(InputError, match=rule):
        replace(OPTIONS, **wrong)


@pytest.mark.parametrize(
    "name", ["llama-3.1-8b", "qwen3-0.6b", "qwen3-30b-a3b", "qwen2.5-7b", "deepseek-v2-lite", "mixtral-8x7b"]
)
def test_models_of_the_catalogue_are_supported(name):
    check_supported(reduced(load_architecture(name), 2), Parallel(), OPTIONS)


def test_a_cache_that_does_not_fit_is_infeasible():
    with pytest.raises(InfeasibleError, match="memory: weights and KV cache of all ranks take") as caught:
        TorchRunner(MODELS["gqa"], replace(OPTIONS, num_blocks=2**50))
    assert "fewer KV blocks" in caught.value.relaxation


def test_an_allocation_that_fails_is_infeasible():
    for error in (
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        torch.OutOfMemoryError("CUDA out of memory."),
    ):
        with pytest.raises(InfeasibleError, match="a step do not fit"), memory_told("a step"):
            raise error
    with pytest.raises(RuntimeError, match="shape"), memory_told("a step"):
        raise RuntimeError("shape mismatch")


def test_a_matrix_depends_on_its_name_and_not_on_its_slice():
    weights = Weights(3, "cpu", torch.float32)
    whole = weights.matrix(1, "q", 12, 8)
    torch.testing.assert_close(weights.matrix(1, "q", 12, 8, slice(4, 8), slice(2, 4)), whole[4:8, 2:4])
    assert not torch.equal(weights.matrix(2, "q", 12, 8), whole)
    assert not torch.equal(weights.matrix(1, "k", 12, 8), whole)
    assert float(whole.std()) == pytest.approx(8**-0.5, rel=0.3)


def test_ranks_lie_tensor_innermost_then_data_then_stage():
    parallel = Parallel(tp=2, dp=3, pp=2)
    places = [place_of(rank, parallel) for rank in range(12)]
    assert [rank_of(p.stage, p.dp_rank, p.tp_rank, parallel) for p in places] == list(range(12))
    assert (places[7].stage, places[7].dp_rank, places[7].tp_rank) == (1, 0, 1)
