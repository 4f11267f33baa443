"""A plan that an engine cannot express is refused, and the message says which knob and why."""

from dataclasses import replace

import pytest

from simtool.emit import Request, emit
from simtool.errors import InputError
from simtool.overlaps import STOCK
from simtool.plan import ExpertOffload, KvPolicy, Parallel, Plan, Pool, Scheduler
from tests.emit.plans import EXAMPLE, TWO_NODES, plan, with_kv, with_pool, with_scheduler

MOE = plan("qwen3-30b-a3b", parallel=Parallel(tp=4))


def refused(asked: Plan, reason: str, target="vllm", **request):
    with pytest.raises(InputError, match=reason):
        emit(asked, Request(target=target, **request))


@pytest.mark.parametrize(
    ("target", "scheduling"),
    [
        ("vllm", "prefill_first"),
        ("vllm", "static"),
        ("sglang", "static"),
        ("sglang", "no_chunking"),
        ("trtllm", "prefill_first"),
    ],
)
def test_a_schedule_that_the_engine_lacks(target, scheduling):
    refused(with_scheduler(EXAMPLE, scheduling=scheduling), f"no {scheduling} scheduling", target)


def test_vllm_spreads_experts_over_all_ranks_or_none():
    refused(with_pool(MOE, parallel=Parallel(tp=4, ep=2)), "over all of tp x dp = 4 ranks or over none")
    assert (
        "--ep-size 2"
        in emit(with_pool(MOE, parallel=Parallel(tp=4, ep=2)), Request(target="sglang")).files["launch.sh"]
    )


def test_deepep_sends_between_ranks_that_hold_whole_experts():
    for backend, mode in (("deepep_high_throughput", "normal"), ("deepep_low_latency", "low_latency")):
        wide = with_pool(MOE, parallel=Parallel(dp=4, ep=4, all2all_backend=backend))
        assert f"--all2all-backend {backend}" in emit(wide, Request(target="vllm")).files["launch.sh"]
        made = emit(wide, Request(target="sglang")).files["launch.sh"]
        assert "--moe-a2a-backend deepep" in made
        assert f"--deepep-mode {mode}" in made
        refused(wide, "chooses its exchange of tokens itself", "trtllm")
        for alone in (Parallel(tp=4, ep=4), Parallel(dp=4)):
            less = with_pool(MOE, parallel=replace(alone, all2all_backend=backend))
            refused(less, "between dp > 1 ranks that hold whole experts")
            refused(less, "between dp > 1 ranks that hold whole experts", "sglang")
    cut = Parallel(tp=2, dp=2, ep=2, all2all_backend="deepep_low_latency")
    refused(with_pool(MOE, parallel=cut), "ep = tp x dp", "sglang")
    plain = emit(with_pool(MOE, parallel=Parallel(dp=4, ep=4)), Request(target="vllm")).files["launch.sh"]
    assert "all2all" not in plain


def test_overlaps_that_an_engine_has():
    wide = Parallel(dp=4, ep=4, all2all_backend="deepep_low_latency")
    two = with_pool(MOE, parallel=wide, overlap=replace(STOCK["two-batch"], min_tokens=32, min_prefill_tokens=512))
    made = emit(two, Request(target="vllm")).files["launch.sh"]
    assert "--enable-dbo" in made
    assert "--dbo-decode-token-threshold 32" in made
    assert "--dbo-prefill-token-threshold 512" in made
    refused(two, "chooses by itself which steps overlap", "sglang")
    refused(two, "no two-batch overlap", "trtllm")
    plain = with_pool(MOE, parallel=wide, overlap=STOCK["two-batch"])
    assert "--enable-two-batch-overlap" in emit(plain, Request(target="sglang")).files["launch.sh"]
    shared = with_pool(MOE, parallel=wide, overlap=STOCK["shared-experts"])
    assert "--enable-single-batch-overlap" in emit(shared, Request(target="sglang")).files["launch.sh"]
    assert "dbo" not in emit(shared, Request(target="vllm")).files["launch.sh"]
    for target in ("vllm", "sglang"):
        refused(with_pool(MOE, parallel=wide, overlap=STOCK["nano"]), "no nano overlap", target)
        gathered = with_pool(MOE, parallel=Parallel(dp=4, ep=4), overlap=STOCK["two-batch"])
        refused(gathered, "only where DeepEP sends tokens", target)


def test_dense_models_have_neither_experts_nor_data_parallel_ranks():
    refused(with_pool(EXAMPLE, parallel=Parallel(tp=2, ep=2)), "mixture-of-experts")
    refused(with_pool(EXAMPLE, parallel=Parallel(dp=2)), "say replicas")


def test_stages_on_different_devices_are_no_engines_option():
    mixed = with_pool(EXAMPLE, parallel=Parallel(pp=2), stage_devices=("h200", "a100-80g"))
    for target in ("vllm", "sglang", "trtllm", "kubernetes", "dynamo", "torchrun"):
        refused(mixed, "stages run on different devices", target)


def test_whole_prompts_need_a_budget_of_a_whole_context():
    refused(with_scheduler(EXAMPLE, scheduling="no_chunking"), "at least max_model_len = 16384")


def test_a_watermark_where_nothing_keeps_one():
    kept = with_kv(EXAMPLE, watermark=0.01)
    refused(kept, "keeps no blocks free", engine_version="0.19.1")
    refused(kept, "keeps no share", "sglang")
    refused(kept, "keeps no share", "trtllm")


def test_cache_dtypes_that_the_version_does_not_store():
    refused(with_kv(EXAMPLE, dtype="int8"), r"no int8 KV cache \(one of auto, bf16, fp16, fp8, nvfp4")
    refused(with_kv(EXAMPLE, dtype="nvfp4"), "no nvfp4 KV cache", engine_version="0.19.1")
    refused(with_kv(EXAMPLE, dtype="fp16"), "no fp16 KV cache", "sglang")
    for request in ({"target": "trtllm"}, {"target": "kubernetes", "engine": "trtllm"}):
        refused(with_kv(EXAMPLE, dtype="bf16"), "no bf16 KV cache", **request)


def test_weights_that_need_a_quantised_checkpoint():
    int4 = replace(EXAMPLE, weight_dtype="int4")
    for target in ("vllm", "sglang", "trtllm"):
        refused(int4, "does not make int4 weights of meta-llama/Llama-3.1-8B, which stores bf16", target)
    refused(replace(EXAMPLE, weight_dtype="fp8"), "does not make fp8", "trtllm")
    made = emit(int4, Request(target="vllm", model_path="some/Llama-3.1-8B-AWQ"))
    assert "--quantization" not in made.files["launch.sh"]
    assert any("has to hold int4 weights" in note for note in made.notes)


def test_a_quantised_checkpoint_is_not_served_in_floats():
    refused(replace(plan("qwen3-32b-fp8", parallel=Parallel(tp=2)), weight_dtype="bf16"), "does not make bf16")


def test_prefix_routing_needs_a_router_that_has_it():
    aware = replace(EXAMPLE, router="prefix_aware")
    refused(aware, "routes by the prompt's prefix")
    refused(aware, "no prefix_aware policy", "kubernetes")
    assert "cache_aware" in emit(aware, Request(target="sglang")).files["launch.sh"]
    made = emit(aware, Request(target="dynamo", engine="sglang"))
    assert "- kv\n" in made.files["manifest.yaml"]
    assert "--kv-events-config" in made.files["manifest.yaml"], "SGLang's workers tell what they cache only when asked"
    refused(with_kv(aware, prefix_caching=False), "the plan's prefix cache is off", "dynamo")
    least = replace(EXAMPLE, router="least_outstanding")
    assert "least_conn;" in emit(least, Request(target="vllm")).files["nginx.conf"]
    refused(least, "it is not least_outstanding", "llm-d")


def test_what_trtllm_leaves_to_others():
    refused(with_scheduler(EXAMPLE, policy="priority"), "no priority policy", "trtllm")
    refused(with_pool(MOE, parallel=Parallel(tp=2, dp=2)), "attention DP", "trtllm")
    refused(with_pool(EXAMPLE, parallel=Parallel(pp=2, layers_per_stage=(10, 22))), "splits layers", "trtllm")
    refused(TWO_NODES, "spans 2 nodes", "trtllm")


def test_several_pools():
    pools = (Pool(device="h200"), Pool(device="l4", scheduler=Scheduler(max_model_len=4096)))
    both = replace(EXAMPLE, cluster="1xh200+2xl4", pools=pools)
    made = emit(both, Request(target="vllm"))
    assert sorted(made.files) == ["launch-node-0.sh", "launch-node-1.sh", "nginx.conf"]
    assert "${NODE_1}:8002" in made.files["nginx.conf"]
    assert made.files["launch-node-1.sh"].count("CUDA_VISIBLE_DEVICES=0 ") == 1
    refused(both, "one release of the chart", "llm-d")
    refused(both, "the executor runs replicas of one", "torchrun")
    manifest = emit(both, Request(target="kubernetes")).files["manifest.yaml"]
    assert manifest.count("llm-simtool/device: ") == 2


def test_replicas_that_do_not_fit():
    refused(with_pool(EXAMPLE, replicas=5), "replica 4 of 2 x h200 fits neither")
    refused(replace(EXAMPLE, cluster="8xa100-80g"), "is not in the cluster")


def test_a_model_that_nobody_could_load(tmp_path):
    from simtool.json_text import json_text
    from simtool.models.catalogue import catalogue_entry

    entry = catalogue_entry("llama-3.1-8b")
    assert entry is not None
    path = tmp_path / "config.json"
    path.write_text(json_text(entry.config), encoding="utf-8")
    own = replace(EXAMPLE, model=str(path))
    refused(own, "without weights beside it")
    (tmp_path / "model.safetensors").touch()
    assert f"vllm serve {tmp_path}" in emit(own, Request(target="vllm")).files["launch.sh"]
    refused(replace(EXAMPLE, model="llama-3.1-8b-instruct"), "is a variant of meta-llama/Llama-3.1-8B")
    assert (
        "meta-llama/Llama-3.1-8B-Instruct "
        in emit(replace(EXAMPLE, model="meta-llama/Llama-3.1-8B-Instruct"), Request(target="vllm")).files["launch.sh"]
    )


@pytest.mark.parametrize("name", ["a\nb", "--trust-remote-code", " x", "a\x00b"])
def test_names_that_no_shell_or_yaml_could_hold(name):
    refused(EXAMPLE, "must be printable", model_path=name)
    refused(EXAMPLE, "must be printable", served_name=name)


def test_options_that_do_not_go_together():
    refused(EXAMPLE, "is no target", "vlllm")
    refused(EXAMPLE, "is an engine itself", "vllm", engine="sglang")
    refused(EXAMPLE, "runs in no container", "vllm", image="x")
    refused(EXAMPLE, "is no engine", "kubernetes", engine="tgi")
    refused(EXAMPLE, "Dynamo workers of vllm and sglang", "dynamo", engine="trtllm")
    refused(EXAMPLE, "no options of this version", "sglang", engine_version="0.33.0")


def test_a_priced_library_that_is_not_the_engine_is_said():
    assert any("priced with vllm's kernels" in note for note in emit(EXAMPLE, Request(target="sglang")).notes)
    assert emit(EXAMPLE, Request(target="vllm")).notes == ()
    assert with_kv(EXAMPLE, num_gpu_blocks=9).pools[0].kv == KvPolicy(prefix_caching=True, num_gpu_blocks=9)


def test_offload_that_an_engine_has():
    shared = with_pool(MOE, offload=ExpertOffload(policy="zero-copy", slots=64))
    made = emit(shared, Request(target="vllm")).files["launch.sh"]
    # 48 layers of 128 experts, 24 of them in HBM; an expert has 3 x 2048 x 768 bf16 weights, a quarter on each rank
    gib = 24 * 128 * 3 * 2048 * 768 * 2 / 4 / 2**30
    for words in ("--offload-backend uva", f"--cpu-offload-gb {gib:.2f}", "--cpu-offload-params experts"):
        assert words in made
    refused(shared, "no zero-copy offload", "sglang")
    refused(shared, "no zero-copy offload", "trtllm")
    on_cpu = with_pool(MOE, parallel=Parallel(), offload=ExpertOffload(policy="static-cpu", slots=16))
    made = emit(on_cpu, Request(target="sglang")).files["launch.sh"]
    for words in ("--kt-num-gpu-experts 16", "--kt-method BF16", "--kt-cpuinfer 112", "--kt-weight-path"):
        assert words in made
    refused(on_cpu, "no static-cpu offload")
    refused(replace(on_cpu, weight_dtype="int4"), "as they are stored|int4", "sglang")
