"""What is emitted says what the plan says: every flag exists, and reading it back gives the plan's knobs."""

import shlex
from dataclasses import replace
from typing import get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.emit import Request, emit
from simtool.emit.option_table import load_table, recorded_versions
from simtool.plan import All2AllBackend, KvPolicy, Parallel, Plan, Pool, Scheduler

GATHERED: All2AllBackend = "allgather_reducescatter"
KV_NAMES = {"bfloat16": "bf16", "float16": "fp16"}


@st.composite
def plans(draw, scheduling=("chunked", "no_chunking")):
    """Legal one-pool plans on a node of 8."""
    model = draw(st.sampled_from(["llama-3.1-8b", "qwen3-30b-a3b"]))
    tp, pp = draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([1, 2]))
    dp = draw(st.sampled_from([1, 2])) if model.startswith("qwen") and tp * pp <= 4 else 1
    ep = draw(st.sampled_from([1, tp * dp])) if model.startswith("qwen") else 1
    layers = {"llama-3.1-8b": (10, 22), "qwen3-30b-a3b": (20, 28)}[model]
    split = draw(st.sampled_from([(), layers])) if pp == 2 else ()
    context = draw(st.sampled_from([4096, 8192]))
    scheduler = Scheduler(
        scheduling=draw(st.sampled_from(scheduling)),
        policy=draw(st.sampled_from(["fcfs", "priority"])),
        max_num_seqs=draw(st.integers(1, 1024)),
        max_num_batched_tokens=draw(st.integers(8192, 16384)),
        max_model_len=context,
        cuda_graphs=draw(st.booleans()),
        async_scheduling=draw(st.booleans()),
    )
    if scheduler.cuda_graphs:
        scheduler = replace(scheduler, cuda_graph_sizes=draw(st.sampled_from([(), (1, 2, 4, 8)])))
    kv = KvPolicy(
        block_size=draw(st.sampled_from([16, 32, 64])),
        gpu_memory_utilization=draw(st.sampled_from([0.5, 0.85, 0.9])),
        prefix_caching=draw(st.booleans()),
        num_gpu_blocks=draw(st.sampled_from([0, 4096])),
        dtype=draw(st.sampled_from(["auto", "bf16", "fp8"])),
    )
    parallel = Parallel(tp=tp, pp=pp, dp=dp, ep=ep, layers_per_stage=split)
    if dp > 1 and ep == tp * dp:
        parallel = replace(parallel, all2all_backend=draw(st.sampled_from(get_args(All2AllBackend))))
    pool = Pool(device="h200", parallel=parallel, scheduler=scheduler, kv=kv)
    weights = draw(st.sampled_from(["auto", "bf16", "fp8"]))
    return Plan(model=model, cluster="8xh200", pools=(pool,), weight_dtype=weights)


def parsed(script: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    """(environment, option -> values) of the only command in a script."""
    words = shlex.split(script.split("\n\n", 1)[1].replace("\\\n", " "), comments=True)
    env = dict(word.split("=", 1) for word in words[: words.index("vllm") if "vllm" in words else 0] if "=" in word)
    options: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            options[word] = []
        elif options:
            options[next(reversed(options))].append(word)
    return env, options


def read_back(script: str, plan: Plan) -> Plan:
    """The plan that a `vllm serve` command states. model, cluster and device are not options."""
    env, found = parsed(script)

    def number(name: str, default: int = 1) -> int:
        return int(found[name][0]) if name in found else default

    tp, dp = number("--tensor-parallel-size"), number("--data-parallel-size")
    layers = env.get("VLLM_PP_LAYER_PARTITION", "")
    parallel = Parallel(
        tp=tp,
        pp=number("--pipeline-parallel-size"),
        dp=dp,
        ep=tp * dp if "--enable-expert-parallel" in found else 1,
        layers_per_stage=tuple(map(int, layers.split(","))) if layers else (),
        all2all_backend=found["--all2all-backend"][0] if "--all2all-backend" in found else GATHERED,
    )
    scheduler = Scheduler(
        scheduling="chunked" if "--enable-chunked-prefill" in found else "no_chunking",
        policy=found["--scheduling-policy"][0],
        max_num_seqs=number("--max-num-seqs"),
        max_num_batched_tokens=number("--max-num-batched-tokens"),
        max_model_len=number("--max-model-len", 0),
        cuda_graphs="--enforce-eager" not in found,
        cuda_graph_sizes=tuple(map(int, found.get("--cudagraph-capture-sizes", []))),
        async_scheduling="--async-scheduling" in found,
    )
    dtype = found["--kv-cache-dtype"][0]
    kv = KvPolicy(
        block_size=number("--block-size"),
        gpu_memory_utilization=float(found["--gpu-memory-utilization"][0]),
        prefix_caching="--enable-prefix-caching" in found,
        num_gpu_blocks=number("--num-gpu-blocks-override", 0),
        dtype=KV_NAMES.get(dtype, dtype),
        watermark=float(found["--watermark"][0]) if "--watermark" in found else 0.0,
    )
    weights = "fp8" if "--quantization" in found else "bf16" if "--dtype" in found else "auto"
    pool = Pool(device=plan.pools[0].device, parallel=parallel, scheduler=scheduler, kv=kv)
    return replace(plan, pools=(pool,), weight_dtype=weights)


@settings(max_examples=60, deadline=None)
@given(plans(), st.sampled_from(recorded_versions("vllm")))
def test_a_vllm_command_reads_back_as_the_plan(plan, version):
    if plan.pools[0].parallel.tp * plan.pools[0].parallel.dp == 1:
        plan = replace(plan, pools=(replace(plan.pools[0], parallel=replace(plan.pools[0].parallel, ep=1)),))
    script = emit(plan, Request(target="vllm", engine_version=version)).files["launch.sh"]
    assert read_back(script, plan) == plan


@settings(max_examples=60, deadline=None)
@given(plans(scheduling=("chunked", "prefill_first")), st.sampled_from(recorded_versions("sglang")))
def test_every_flag_of_sglang_exists_in_its_version(plan, version):
    pool = plan.pools[0]
    if pool.parallel.dp > 1 and pool.parallel.pp > 1:
        plan = replace(plan, pools=(replace(pool, parallel=replace(pool.parallel, pp=1, layers_per_stage=())),))
    made = emit(plan, Request(target="sglang", engine_version=version))
    _, found = parsed(made.files["launch.sh"])
    table = load_table("sglang", version)
    for name, values in found.items():
        table.check("sglang.launch_server", name, tuple(values))
    p = plan.pools[0].parallel
    assert found["--tp-size"] == [str(p.tp * p.dp)]
    assert found["--max-running-requests"] == [str(plan.pools[0].scheduler.max_num_seqs * p.dp)]


def test_a_watermark_needs_a_version_that_has_one():
    from tests.emit.plans import plan

    kept = plan(kv=KvPolicy(watermark=0.01))
    script = emit(kept, Request(target="vllm", engine_version="0.33.0")).files["launch.sh"]
    assert read_back(script, kept) == kept
