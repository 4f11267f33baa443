"""Kernels compute what they are named after, the clocks read what they are given, and a CPU session yields times."""

import itertools
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from simtool.calibration.kernels.attention import causal, pages  # noqa: E402
from simtool.calibration.kernels.experts import expert_of, grouped_experts, looped_experts  # noqa: E402
from simtool.calibration.kernels.latent import absorbed, expanded  # noqa: E402
from simtool.calibration.kernels.memory import rope_and_write, rotated  # noqa: E402
from simtool.calibration.points import KernelPoint  # noqa: E402
from simtool.calibration.points_file import read_journal  # noqa: E402
from simtool.calibration.profiling import kernels_attention as attention  # noqa: E402
from simtool.calibration.profiling.arena import Arena, ArenaTooSmallError  # noqa: E402
from simtool.calibration.profiling.clock import FEWEST_GOOD, CpuClock, settled  # noqa: E402
from simtool.calibration.profiling.collectives import collective_call  # noqa: E402
from simtool.calibration.profiling.cpu_setup import cache_bytes  # noqa: E402
from simtool.calibration.profiling.kernels_gemm import choices, gemm  # noqa: E402
from simtool.calibration.profiling.machine import gpu_device_name  # noqa: E402
from simtool.calibration.profiling.request import ProfileRequest  # noqa: E402
from simtool.calibration.profiling.session import profile_machine  # noqa: E402
from simtool.calibration.profiling.torch_bench import BUILDERS, KERNELS, TorchBench  # noqa: E402
from simtool.models.catalogue import catalogue_entry  # noqa: E402

ARENA_BYTES = 2**22
GQA = {"heads": 4.0, "kv_heads": 2.0, "head_dim": 16.0, "window": 0.0}


@pytest.fixture
def arena():
    return Arena("cpu", ARENA_BYTES, 0)


def naive_attention(q, k, v, seen):
    """One query and head after the other; seen(i): keys that query i sees."""
    out = torch.empty(q.shape[0], q.shape[1], q.shape[2], v.shape[3])
    group = q.shape[1] // k.shape[1]
    for b, h, i in itertools.product(range(q.shape[0]), range(q.shape[1]), range(q.shape[2])):
        keys, values = k[b, h // group, : seen(i)], v[b, h // group, : seen(i)]
        out[b, h, i] = torch.softmax(keys @ q[b, h, i] / q.shape[3] ** 0.5, dim=0) @ values
    return out


@pytest.mark.parametrize("prefix", [0, 1, 5, 12])
def test_prefill_sees_the_prefix_and_itself(prefix):
    torch.manual_seed(0)
    new, total = 7, 7 + prefix
    q, k = torch.randn(2, 4, new, 16), torch.randn(2, 2, total, 16)
    v = torch.randn(2, 2, total, 16)
    found = causal(q, k, v)
    torch.testing.assert_close(found, naive_attention(q, k, v, lambda i: prefix + i + 1), rtol=1e-4, atol=1e-5)


def test_prefill_finds_its_context_in_pages(monkeypatch):
    """The measured call over pages is the plain one over the same keys in order."""
    dims = {"batch": 1.0, "seq": 5.0, "prefix": 20.0, **GQA}
    point = KernelPoint(family="attention_prefill", dtype="fp32", kernel="paged_sdpa:prefix", dims=dims)
    seen = []
    whole = attention.paged_prefill
    monkeypatch.setattr(attention, "paged_prefill", lambda *args: seen.append((args, whole(*args))))
    attention.prefill(Arena("cpu", ARENA_BYTES, 0), point)()()
    (q, keys, values, table, total), found = seen[0]
    assert total == 25
    k, v = (pages(cache, table)[:, :25].transpose(1, 2) for cache in (keys, values))
    torch.testing.assert_close(found, naive_attention(q, k, v, lambda i: 21 + i), rtol=1e-4, atol=1e-5)


def test_pages_come_in_the_order_of_the_table():
    cache = torch.arange(24.0).view(4, 3, 2)  # 4 blocks of 3 tokens
    found = pages(cache, torch.tensor([[3, 0], [1, 1]]))
    assert found[:, :, 0].tolist() == [[18, 20, 22, 0, 2, 4], [6, 8, 10, 6, 8, 10]]


def test_decode_of_unlike_lengths_sees_each_length(monkeypatch):
    dims = {"batch": 4.0, "kv_len": 10.0, "kv_max": 19.0, **GQA}
    point = KernelPoint(family="attention_decode", dtype="fp32", kernel="paged_sdpa:skewed", dims=dims)
    taken, drawn = [], []

    class Recording(Arena):
        def take(self, dtype, *shape):
            taken.append(super().take(dtype, *shape))
            return taken[-1]

    tables = attention.tables
    monkeypatch.setattr(attention, "tables", lambda *args: drawn.append(tables(*args)) or drawn[-1])
    found = attention.decode(Recording("cpu", ARENA_BYTES, 0), point)()()
    q, (k, v) = taken[0], (pages(cache, drawn[0]) for cache in taken[1:])
    lengths = attention.skewed_lengths(4, 10.0, 19)
    assert lengths.max() == 19
    assert lengths.mean() == pytest.approx(10.0, abs=0.5)
    assert k.shape[1] == 32  # two whole blocks
    for request, length in enumerate(lengths.tolist()):
        keys, values = k[request, :length].transpose(0, 1), v[request, :length].transpose(0, 1)
        scores = torch.softmax(q[request] @ keys.transpose(1, 2) / 4.0, dim=-1)
        torch.testing.assert_close(found[request], scores @ values, rtol=1e-4, atol=1e-5)


def test_absorbed_latent_attention_is_the_expanded_one():
    torch.manual_seed(0)
    batch, heads, length, nope, rope, latent, value = 2, 3, 9, 8, 4, 16, 6
    q, cache = torch.randn(batch, heads, nope + rope), torch.randn(batch, length, latent + rope)
    up_key, up_value = torch.randn(heads, nope, latent), torch.randn(heads, latent, value)
    found = absorbed(q, cache, up_key, up_value, None)
    keys = torch.einsum("blc,hnc->bhln", cache[:, :, :latent], up_key)
    keys = torch.cat((keys, cache[:, None, :, latent:].expand(-1, heads, -1, -1)), dim=-1)
    values = torch.einsum("blc,hcv->bhlv", cache[:, :, :latent], up_value)
    wanted = naive_attention(q[:, :, None], keys, values, lambda i: length)[:, :, 0]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_expanded_latent_attention_pads_values_alone():
    torch.manual_seed(0)
    q, kv, rope = torch.randn(3, 2, 12), torch.randn(7, 2, 8 + 6), torch.randn(7, 4)
    keys = torch.cat((kv[:, :, :8], rope[:, None].expand(-1, 2, -1)), dim=-1)
    inputs = [part.transpose(0, 1)[None] for part in (q, keys, kv[:, :, 8:])]
    wanted = naive_attention(*inputs, lambda i: 5 + i)[0].transpose(0, 1)
    torch.testing.assert_close(expanded(q, kv, rope), wanted, rtol=1e-4, atol=1e-5)


def test_experts_see_their_rows_and_each_token_sums_its_own():
    """Of six experts, of which four are this rank's, by a loop over tokens."""
    torch.manual_seed(0)
    x, up, down = torch.randn(9, 16), torch.randn(4, 2 * 8, 16), torch.randn(4, 16, 8)
    chosen, weight = torch.randint(-1, 5, (9, 3)), torch.rand(9, 3)
    chosen[:, 0] = 2
    wanted = torch.zeros(9, 16)
    for token, place in itertools.product(range(9), range(3)):
        expert = int(chosen[token, place])
        if 0 <= expert < 4:
            gate, value = (up[expert] @ x[token]).chunk(2)
            wanted[token] += weight[token, place] * (down[expert] @ (torch.nn.functional.silu(gate) * value))
    looped = looped_experts(x, chosen, weight, 4, expert_of(up, down))
    torch.testing.assert_close(looped, wanted, rtol=1e-4, atol=1e-4)
    narrow = (part.bfloat16() for part in (x, up, down))
    x, up, down = narrow
    grouped = grouped_experts(x, chosen, weight.bfloat16(), up, down)
    torch.testing.assert_close(grouped.float(), wanted, rtol=0.1, atol=1.0)  # sums of 48 products in bf16


def test_choices_have_the_loads_asked_for():
    found = choices(np.array([3, 0, 5]), 6, 2)
    assert np.bincount(found.ravel(), minlength=4).tolist() == [3, 0, 5, 4]


def test_rope_and_write_stores_turned_keys_and_plain_values():
    torch.manual_seed(0)
    rows, angle = torch.randn(3, 2 + 2 * 1, 4), torch.randn(3, 1, 2)
    k_cache, v_cache = torch.zeros(2, 2, 1, 4), torch.zeros(2, 2, 1, 4)
    slots = torch.tensor([2, 0, 3])
    turned = rope_and_write(rows, angle.cos(), angle.sin(), k_cache, v_cache, slots)
    torch.testing.assert_close(turned, rotated(rows[:, :3], angle.cos(), angle.sin()))
    torch.testing.assert_close(k_cache.view(4, 4)[slots], turned[:, 2])
    torch.testing.assert_close(v_cache.view(4, 4)[slots], rows[:, 3])
    assert not k_cache.view(4, 4)[1].any()


def test_rotation_keeps_lengths_and_turns_by_the_angle():
    x, angle = torch.tensor([[[1.0, 2.0, 0.0, 0.0]]]), torch.tensor([0.5, 1.0])
    turned = rotated(x, torch.cos(angle), torch.sin(angle))[0, 0]
    wanted = [np.cos(0.5), 2 * np.cos(1.0), np.sin(0.5), 2 * np.sin(1.0)]
    np.testing.assert_allclose(turned.numpy(), wanted, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8_wo", "int4"])
def test_gemms_give_m_rows_of_n(arena, dtype):
    dims = {"m": 3.0, "n": 64.0, "k": 256.0}
    product = gemm(arena, KernelPoint(family="gemm", dtype=dtype, kernel="x", dims=dims))()()
    assert product.shape == (3, 64)
    assert torch.isfinite(product.float()).all()
    assert float(product.float().std()) > 0


def test_the_arena_goes_round_and_never_hands_out_zeros(arena):
    places = {arena.take("fp32", 2**18).data_ptr() for _ in range(12)}
    assert len(places) == 4
    assert float(arena.take("fp32", 1000).std()) == pytest.approx(1.0, abs=0.2)
    assert float(arena.take("bf16", 1000).float().abs().min()) > 0
    with pytest.raises(ArenaTooSmallError):
        arena.take("fp32", 2**21)


def test_the_clock_takes_the_median_and_repeats_wide_rounds():
    rounds = iter([[1.0, 1.0, 9.0, 5.0], [1.0] * 20, [7.0]])
    timing = settled(lambda: next(rounds))
    assert (timing.seconds, timing.repeats) == (1.0, 24)
    reads = itertools.count(step=1.0)  # every reading is a second after the last
    timing = CpuClock(read=lambda: float(next(reads))).time(lambda: lambda: None)
    assert (timing.seconds, timing.spread, timing.repeats) == (1.0, 0.0, FEWEST_GOOD)  # a long call needs few samples


def test_samples_that_a_busy_neighbour_spoilt_do_not_count():
    """A machine that runs at half its speed for half of the time: 1 s of work takes 2 s."""
    state = {"now": 0.0, "calls": 0}

    def work(seconds):
        state["calls"] += 1
        slow = state["calls"] // 37 % 2 == 1
        state["now"] += seconds * (2.0 if slow else 1.0)

    clock = CpuClock(
        shortest_s=0.1, round_s=20.0, probe=lambda: work(0.1), read=lambda: state["now"], sleep=lambda _: None
    )
    timing = clock.time(lambda: lambda: work(1.0))
    assert timing.seconds == pytest.approx(1.0)
    assert timing.spread < 0.01


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA A100-SXM4-80GB", "a100-80g"),
        ("NVIDIA A100-SXM4-40GB", "a100-40g"),
        ("NVIDIA A100 80GB PCIe", "a100-pcie-80g"),
        ("NVIDIA L40S", "l40s"),
        ("Tesla T4", "t4"),
        ("Tesla V100-SXM2-32GB", "v100-32g"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("NVIDIA H200 NVL", "h200-nvl"),
    ],
)
def test_a_gpu_is_found_by_its_drivers_name(name, device):
    assert gpu_device_name(name) == device


def test_cache_size_is_read_off_the_system(tmp_path):
    for index, size in enumerate(("32K", "2048K", "33M", "nonsense")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(size + "\n")
    assert cache_bytes(tmp_path) == 33 * 2**20
    assert cache_bytes(tmp_path / "absent") > 2**20


def test_every_collective_runs_alone(tmp_path):
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=(tmp_path / "meet").as_uri(), rank=0, world_size=1)
    try:
        for kind in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all"):
            collective_call(kind, 4096, 0, 1, "cpu")()
    finally:
        dist.destroy_process_group()


def small_model(folder):
    """A model with latent attention and experts that fits a small arena."""
    config = dict(catalogue_entry("deepseek-v2-lite").config)
    config |= {"hidden_size": 256, "moe_intermediate_size": 64, "intermediate_size": 256, "vocab_size": 4096}
    config |= {"n_routed_experts": 8, "num_experts_per_tok": 2}
    path = folder / "small.json"
    path.write_text(json.dumps(config))
    return path


def test_a_short_cpu_session_measures_every_family(tmp_path):
    request = ProfileRequest(
        device="cpu",
        budget_s=60.0,
        models=(str(small_model(tmp_path)), "qwen3-0.6b"),
        tp=(4,),
        families=(*BUILDERS, "host"),
        dtypes=("fp32",),
    )
    bench = TorchBench("cpu", 0, clock=CpuClock(shortest_s=1e-5, round_s=1e-3), arena_bytes=2**24)
    ticks = itertools.count(step=0.1)  # the session's clock: a point takes five looks at it
    found = profile_machine(request, tmp_path / "points.jsonl", bench=bench, now=lambda: float(next(ticks)))
    assert {table.family for table in found.tables} == set(BUILDERS)
    assert all((table.seconds > 0).all() for table in found.tables)
    assert found.host[0].seconds > 0
    assert not [w.row for w in read_journal(tmp_path / "points.jsonl").rows if type(w.row).__name__ == "Skipped"]


def test_every_family_has_a_kernel_and_a_builder():
    bench = TorchBench("cpu", 0, clock=CpuClock(), arena_bytes=2**20)
    for family in BUILDERS:
        assert bench.kernel(family, "fp32", "norm" if family == "elementwise" else "")
    assert set(KERNELS) < set(BUILDERS)
