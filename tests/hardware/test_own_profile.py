"""The user's own profiles: they price before the shipped ones, say so, and are refused once they have changed."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import simtool as st
from simtool.errors import InputError
from simtool.explaining import unused_profiles
from simtool.hardware.cluster import parse_cluster
from simtool.hardware.collectives import CollectiveModel, collective_model
from simtool.hardware.device import load_device
from simtool.hardware.fitted import FittedCostModel, load_cost_model
from simtool.hardware.fitted_process import GaussianProcess
from simtool.hardware.fitted_work import FAMILY_TERMS
from simtool.hardware.links import load_link
from simtool.hardware.own_profiles import load_own_profiles, profile_files
from simtool.hardware.profile_file import profile_bytes
from simtool.models.lowering_kernels import elementwise
from simtool.models.operators import Operator
from simtool.simulator.host import load_host
from tests.hardware.own_profile import BANDWIDTH, GQA, LAW, PEAK, all_reduces, write_small
from tests.hardware.test_cost import column, gemm

Written = Callable[..., Path]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """write_small into a fresh folder of this module; the same question twice is answered once."""
    known: dict[str, Path] = {}

    def write(**asked: object) -> Path:
        key = repr(asked)
        if key not in known:
            known[key] = write_small(tmp_path_factory.mktemp("own") / "mine.json", **asked)
        return known[key]

    return write


def model_with(*paths: Path, device: str = "h200", library: str = "vllm") -> FittedCostModel:
    own = load_own_profiles(profile_files(*paths))
    return load_cost_model(load_device(device), parse_cluster(f"8x{device}").group_of(), library, own)


def collectives_with(path: Path, cluster: str, library: str) -> CollectiveModel:
    group = parse_cluster(cluster).group_of()
    return load_cost_model(group.device, group, library, load_own_profiles(profile_files(path))).collectives


def plan_with(*paths: Path, **changes: object) -> st.Plan:
    plan = st.Plan(model="llama-3.1-8b", cluster="2xh200", pools=(st.Pool(device="h200"),), **changes)
    return replace(plan, profiles=profile_files(*paths))


def decodes(kv_len: float, kv_max: float = 0.0) -> Operator:
    sizes = {"batch": 16.0, "kv_len": kv_len, **GQA} | ({"kv_max": kv_max} if kv_max else {})
    dims = {name: column(value) for name, value in sizes.items()}
    return Operator(
        name="d",
        family="attention_decode",
        count=1,
        dtype="bf16",
        dims=dims,
        flops=4 * 16 * dims["kv_len"] * 32 * 128,
        hbm_bytes=4 * 16 * dims["kv_len"] * 8 * 128,
    )


def test_a_law_twice_as_slow_takes_twice_as_long(written: Written) -> None:
    operator = gemm(column(3, 50, 700), 9000, 6000)
    once, twice = (model_with(written(slower=slower)).price(operator) for slower in (1.0, 2.0))
    known = LAW.seconds(FAMILY_TERMS["gemm"].work(operator.dims, "bf16"), PEAK, BANDWIDTH)
    assert once.seconds == pytest.approx(known, rel=0.02)
    assert twice.seconds == pytest.approx(2 * known, rel=0.02)
    assert once.provenance == "interpolated"


def test_a_step_is_slower_by_what_its_gemms_are_and_says_whose_they_are(written: Written) -> None:
    path = written(slower=2.0)
    steps = [st.explain(plan_with(p), "decode:16x2048") for p in (written(slower=1.0), path)]
    once, twice = ({row.name: row for row in step.rows} for step in steps)
    gemms = {name for name, row in once.items() if row.family == "gemm"}
    assert {"qkv", "lm_head"} <= gemms
    for name, row in twice.items():
        assert row.seconds == pytest.approx((2 if name in gemms else 1) * once[name].seconds, rel=0.02)
        assert row.source.startswith("h200/vllm/") == (row.family in ("gemm", "attention_decode"))
        assert row.source.endswith(f"[{path}]") == (name in gemms)
    added = sum(twice[name].seconds - once[name].seconds for name in gemms)
    assert steps[1].seconds - steps[0].seconds == pytest.approx(added)


def test_the_first_given_profile_wins_and_the_shipped_ones_fill_in(written: Written) -> None:
    slow, fast = written(slower=2.0), written(slower=1.0)
    both = model_with(slow, fast)
    assert both.price(gemm(column(64), 4096, 4096)).source.endswith(f"[{slow}]")
    assert "[" not in both.price(gemm(column(64), 4096, 4096, "fp8")).source
    other = model_with(slow, library="sglang").price(gemm(column(64), 4096, 4096))
    assert other.source == "h200/sglang/gemm/bf16"


def test_a_profile_in_fp16_prices_fp16(written: Written) -> None:
    cost = model_with(written(dtype="fp16")).price(gemm(column(64), 4096, 4096, "fp16"))
    assert cost.source.startswith("h200/vllm/gemm/fp16 [")
    assert cost.provenance == "interpolated"


def test_sampling_is_priced_by_its_own_fit_where_one_is_there(written: Written) -> None:
    """It was measured as a whole: its launches are inside. By the fit of another family it pays each of them."""
    path = written(families=("elementwise", "sampling"))
    moved = 4.5 * 4 * 128256
    plain = elementwise("s", count=1, tokens=column(16), bytes_per_token=moved, dtype="fp32", launches=4)
    sampler = replace(plain, family="sampling")
    own = model_with(path).price(sampler)
    assert own.source.startswith("h200/vllm/sampling/fp32")
    assert own.seconds == pytest.approx(
        LAW.seconds(FAMILY_TERMS["sampling"].work({"bytes": 16 * moved}, ""), PEAK, BANDWIDTH), rel=0.02
    )
    whole = model_with(path).price(plain)
    assert whole.source.startswith("h200/vllm/elementwise/bf16")
    assert whole.seconds == pytest.approx(
        4 * LAW.seconds(FAMILY_TERMS["sampling"].work({"bytes": 4 * moved}, ""), PEAK, BANDWIDTH), rel=0.02
    )
    without = model_with().price(sampler)
    assert without.seconds == pytest.approx(model_with().price(plain).seconds)
    assert "elementwise" in without.source


def test_a_skewed_batch_lies_between_its_mean_and_its_longest(written: Written) -> None:
    model = model_with(written(families=("attention_decode",), skew=0.5))
    mean, longest, skewed = (model.price(decodes(*lengths)).seconds[0] for lengths in ((3e3,), (12e3,), (3e3, 12e3)))
    assert skewed == pytest.approx(mean + 0.5 * (longest - mean), rel=0.02)
    assert model.price(decodes(3e3, 3e3)).seconds[0] == mean
    unknown = model_with()
    assert unknown.price(decodes(3e3, 12e3)).seconds == unknown.price(decodes(3e3)).seconds


def test_explain_knows_the_longest_length(written: Written) -> None:
    plan = plan_with(written(families=("attention_decode",), skew=0.5))
    texts = ("decode:16x3000", "decode:16x12000", "decode:15x2400+decode:1x12000")
    mean, longest, skewed = (
        next(row.seconds for row in st.explain(plan, text).rows if row.family == "attention_decode") for text in texts
    )
    assert skewed == pytest.approx(mean + 0.5 * (longest - mean), rel=0.02)


def test_a_measured_point_is_said_to_be_measured(written: Written) -> None:
    path = written(families=("attention_decode",), skew=0.5)
    model = model_with(path)
    assert isinstance(model.profiles[0].fits["attention_decode", "bf16"].residual, GaussianProcess)
    assert model.price(decodes(512)).provenance == "measured"
    assert model.price(decodes(500)).provenance == "interpolated"
    assert model.price(decodes(512, 4096)).provenance == "interpolated"
    assert model_with(path, library="sglang").price(decodes(512)).provenance == "interpolated"
    assert model_with(path, device="h100-sxm").price(decodes(512)).provenance == "transferred"


def test_own_collectives_come_before_shipped_ones(written: Written) -> None:
    path = written(families=(), collectives=(all_reduces(1e-10, 2),), device="h200")
    own, size = collectives_with(path, "8xh200", "torch"), 2.0**24
    assert own.price("all_reduce", size, 2).seconds == pytest.approx(10e-6 + 1e-10 * size, rel=0.02)
    assert own.price("all_reduce", size, 2).source == f"nccl all_reduce on h200 [{path}]"
    shipped = collective_model(parse_cluster("8xh200").group_of(), "torch")
    for kind, ranks in (("all_reduce", 8), ("all_gather", 2)):
        assert own.price(kind, size, ranks).seconds == shipped.price(kind, size, ranks).seconds
    assert "vllm all_reduce" in collectives_with(path, "8xh200", "vllm").price("all_reduce", size, 2).source
    assert "[" not in collectives_with(path, "8xh100-sxm", "torch").price("all_reduce", size, 2).source


def test_own_collectives_of_a_device_without_shipped_ones(written: Written) -> None:
    path = written(families=(), collectives=(all_reduces(1e-10, 2),), device="h100-sxm")
    own, size = collectives_with(path, "8xh100-sxm", "torch"), 2.0**24
    cost = own.price("all_reduce", size, 2)
    assert cost.seconds == pytest.approx(10e-6 + 1e-10 * size, rel=0.02)
    assert (cost.provenance, cost.source) == ("interpolated", f"nccl all_reduce on h100-sxm [{path}]")
    assert own.price("all_gather", size, 2).source == "nccl all_gather on h200 scaled to h100-sxm"
    group = replace(parse_cluster("8xh100-sxm").group_of(), intra=load_link("pcie5"))
    curves = load_own_profiles(profile_files(path))[0].curves
    assert "[" not in collective_model(group, "torch", curves).price("all_reduce", size, 2).source


def test_own_launch_time_is_its_librarys(written: Written) -> None:
    path = written(launch_s=11e-6, library="torch")
    own = load_own_profiles(profile_files(path))
    host = load_host("torch", own)
    assert host.eager_launch_s == pytest.approx(11e-6)
    assert host.source.endswith(f"launch: h200/torch/eager_launch [{path}]")
    usual = load_host("torch")
    assert replace(host, eager_launch_s=usual.eager_launch_s, source=usual.source) == usual
    assert load_host("vllm", own) == load_host("vllm")


def test_what_is_not_used_is_told_with_the_reason(written: Written) -> None:
    torch, other = written(library="torch"), written(device="l40s")
    assert unused_profiles(plan_with(written())) == []
    told = unused_profiles(plan_with(torch, other, written(), written(slower=2.0)))
    assert told[:2] == [
        f"profile {torch} (h200/torch) is not used: --kernel-library is vllm",
        f"profile {other} (l40s/vllm) is not used: the cluster is 2xh200",
    ]
    assert len(told) == 3
    assert "comes first" in told[2]
    assert unused_profiles(plan_with(torch, kernel_library="torch")) == []


def test_the_library_simulates_and_plans_with_a_profile(written: Written) -> None:
    rng = np.random.default_rng(0)
    workload = st.synthesise(num_requests=8, input_len=64, output_len=16, request_rate=float("inf"), rng=rng)
    spans = [st.simulate(plan_with(*own), workload).finish_s.max() for own in ((), (written(slower=4.0),))]
    assert spans[1] > 1.5 * spans[0]
    space = st.Space(tp=(1,), replicas=(1,), max_num_batched_tokens=(2048,))
    files = st.profile_files(written(slower=4.0))
    question = st.Question(model="llama-3.1-8b", devices="2xh200", workload=workload, space=space, profiles=files)
    best = st.plan(question).best
    assert best.plan.profiles == files
    assert best.metrics is not None
    assert best.metrics["duration"] == pytest.approx(spans[1], rel=0.01)


def test_a_changed_or_lost_profile_is_refused_at_replay(tmp_path: Path) -> None:
    path = write_small(tmp_path / "mine.json")
    plan = plan_with(path)
    table = json.loads(path.read_text())
    path.write_bytes(profile_bytes(table | {"version": "2"}, packed=False))
    with pytest.raises(InputError, match="changed since the plan was made"):
        st.explain(plan, "decode:1x100")
    path.write_bytes(profile_bytes(table, packed=True))  # packed or not, it is the same profile
    assert st.explain(plan, "decode:1x100").seconds > 0
    path.unlink()
    with pytest.raises(InputError, match=r"cannot be read.*--profile"):
        st.explain(plan, "decode:1x100")


def test_an_unknown_device_is_refused_and_an_alias_is_not(written: Written, tmp_path: Path) -> None:
    table = json.loads(written().read_text())
    path = tmp_path / "mine.json"
    path.write_bytes(profile_bytes(table | {"device": "epyc-9654"}, packed=False))
    with pytest.raises(InputError, match=r"'epyc-9654', which is not in the device catalogue .*simtool hardware"):
        profile_files(path)
    path.write_bytes(profile_bytes(table | {"device": "H200 SXM"}, packed=False))
    assert model_with(path).price(gemm(column(64), 4096, 4096)).source == f"h200/vllm/gemm/bf16 [{path}]"


def test_a_fit_over_other_features_is_refused(written: Written, tmp_path: Path) -> None:
    """As one of another version of simtool may be."""
    table = json.loads(written().read_text())
    residual = table["fits"][0]["residual"]
    assert residual["kind"] == "separable"
    residual["knots"].pop()
    residual["factors"].pop()
    (tmp_path / "mine.json").write_bytes(profile_bytes(table, packed=False))
    with pytest.raises(InputError, match="gemm/bf16: its residual has 7 features"):
        profile_files(tmp_path / "mine.json")
