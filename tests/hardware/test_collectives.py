"""Collectives: laws that any price obeys, and the shipped curves against what they were fitted to."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.errors import InputError
from simtool.hardware.cluster import node_group, parse_cluster
from simtool.hardware.collective_curves import FITTED_DEVICES, load_curves
from simtool.hardware.collectives import LIBRARIES, collective_model, collective_time, price_collective
from simtool.hardware.device import load_device
from simtool.models.operators import Operator
from tests.shared_data import SHARED, needs_shared

KINDS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv")
MODELS = {
    (name, library): collective_model(parse_cluster(f"64x{name}").groups[0], library)
    for name in ("h200", "a100", "l40s", "h100", "b200", "v100", "t4", "mi300x", "gb200")
    for library in ("vllm", "nccl")
}
models = st.sampled_from(list(MODELS.values()))
kinds = st.sampled_from(KINDS)
layouts = st.sampled_from([(2, 1), (3, 1), (4, 1), (6, 1), (8, 1), (2, 2), (16, 2), (12, 3), (64, 8)])
size_pairs = st.tuples(st.floats(0, 4e9), st.floats(0, 4e9)).map(sorted)


@settings(deadline=None)
@given(model=models, kind=kinds, layout=layouts, sizes=size_pairs)
def test_time_grows_with_bytes_and_stays_in_its_interval(model, kind, layout, sizes):
    cost = model.price(kind, sizes, *layout)
    assert 0 <= cost.seconds[0] <= cost.seconds[1]
    assert (cost.lower <= cost.seconds).all()
    assert (cost.seconds <= cost.upper).all()
    assert (cost.roofline_s <= cost.seconds * (1 + 1e-9)).all()
    assert np.isfinite(cost.upper).all()


@settings(deadline=None)
@given(model=models, kind=kinds, layout=layouts, size=st.floats(1, 4e9), faster=st.floats(1, 10))
def test_a_better_link_is_never_slower(model, kind, layout, size, faster):
    before = model.price(kind, size, *layout).seconds[0]
    for link in ("intra", "inter"):
        group = model.group
        old = getattr(group, link)
        better = replace(old, bytes_per_s=old.bytes_per_s * faster, latency_s=old.latency_s / faster)
        after = replace(model, group=replace(group, **{link: better})).price(kind, size, *layout).seconds[0]
        assert after <= before * (1 + 1e-12)


@settings(deadline=None)
@given(model=models, kind=kinds, size=st.floats(0, 1e9))
def test_one_rank_has_nobody_to_talk_to(model, kind, size):
    cost = model.price(kind, size, 1)
    assert cost.seconds[0] == cost.upper[0] == 0.0


@settings(deadline=None)
@given(model=models, kind=kinds, layout=layouts)
def test_no_bytes_no_time(model, kind, layout):
    assert model.price(kind, 0.0, *layout).seconds[0] == 0.0


@pytest.mark.parametrize("name", ["a100", "l40s"])
@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_a_large_all_reduce_is_a_reduce_scatter_and_an_all_gather(name, ranks):
    model = MODELS[name, "nccl"]
    whole, scatter, gather = (model.price(k, 2**29, ranks).seconds[0] for k in KINDS[:3])
    assert whole == pytest.approx(scatter + gather, rel=0.25)


def test_switches_that_reduce_beat_the_ring():
    model = MODELS["h200", "nccl"]
    whole, scatter, gather = (model.price(k, 2**29, 8).seconds[0] for k in KINDS[:3])
    assert whole < 0.8 * (scatter + gather)


def test_formulas_of_algorithms():
    group = parse_cluster("8xh100").groups[0]
    size = 2.0**28
    ring = collective_time("all_reduce", size, 8, group, algorithm="ring").seconds[0]
    halves = [collective_time(k, size, 8, group, algorithm="ring").seconds[0] for k in ("reduce_scatter", "all_gather")]
    assert ring == pytest.approx(sum(halves))
    small = 4096.0
    one, two = (
        collective_time("all_reduce", small, 8, group, algorithm=a).seconds[0] for a in ("one_shot", "two_shot")
    )
    assert one < two
    one, two = (collective_time("all_reduce", size, 8, group, algorithm=a).seconds[0] for a in ("one_shot", "two_shot"))
    assert two < one
    nvls = collective_time("all_reduce", size, 8, group, algorithm="nvls")
    assert nvls.seconds[0] < ring
    assert nvls.provenance == "roofline"
    assert collective_time("all_gather", size, 1, group, algorithm="direct").seconds[0] == 0


def test_libraries_differ_where_messages_are_small():
    group = parse_cluster("8xh200").groups[0]
    times = {lib: collective_time("all_reduce", 16384, 8, group, library=lib).seconds[0] for lib in LIBRARIES}
    assert times["vllm"] < times["nccl"] / 2
    assert times["vllm"] < times["vllm-eager"]
    assert times["torch"] == times["nccl"]


def test_own_all_reduce_does_not_leave_the_node():
    vllm, nccl = (MODELS["h200", lib].price("all_reduce", 16384, 16, 2).seconds[0] for lib in ("vllm", "nccl"))
    assert vllm == nccl


def test_provenance_says_where_a_number_comes_from():
    measured, moved = MODELS["h200", "vllm"], MODELS["h100", "vllm"]
    assert measured.price("all_reduce", 1e6, 8).provenance == "interpolated"
    assert moved.price("all_reduce", 1e6, 8).provenance == "transferred"
    assert measured.price("all_reduce", 1e6, 16, 2).provenance == "transferred"
    assert measured.price("send_recv", 1e6, 2, 2).provenance == "roofline"
    width = [m.price("all_reduce", 1e6, 8) for m in (measured, moved, MODELS["b200", "vllm"], MODELS["t4", "vllm"])]
    ratios = [cost.upper[0] / cost.seconds[0] for cost in width]
    assert ratios == sorted(ratios)


def test_expert_dispatch_is_measured_on_h200_only():
    model = collective_model(parse_cluster("8xh200").groups[0], "deepep_ll")
    assert 5e-6 < model.price("dispatch", 1e5, 8).seconds[0] < 50e-6
    with pytest.raises(InputError, match="was not measured"):
        collective_model(parse_cluster("8xa100").groups[0], "deepep").price("dispatch", 1e5, 8)


def test_operator_with_changing_layout():
    sizes, ranks, nodes = np.array([1e6, 1e6, 1e6]), np.array([8.0, 16.0, 1.0]), np.array([1.0, 2.0, 1.0])
    dims = {"bytes": sizes, "ranks": ranks, "nodes": nodes}
    group = parse_cluster("16xh200").groups[0]
    work = {"flops": np.zeros(3), "hbm_bytes": sizes}
    operator = Operator(
        name="r", family="collective", count=1, dtype="bf16", dims=dims, collective="all_reduce", **work
    )
    cost = price_collective(operator, group)
    model = collective_model(group)
    expected = [model.price("all_reduce", 1e6, int(r), int(n)).seconds[0] for r, n in zip(ranks, nodes, strict=True)]
    assert cost.seconds == pytest.approx(expected)
    assert cost.provenance == "transferred"
    with pytest.raises(InputError, match="is no collective"):
        model.price_operator(replace(operator, family="gemm"))


def test_bad_questions_are_one_clear_error():
    model = MODELS["h200", "vllm"]
    for arguments, says in [
        (("all_reduc", 1e6, 8, 1), "is no collective"),
        (("all_reduce", -1.0, 8, 1), "not negative"),
        (("all_reduce", float("nan"), 8, 1), "finite"),
        (("all_reduce", 1e6, 0, 1), "is no placement"),
        (("all_reduce", 1e6, 2, 4), "is no placement"),
    ]:
        with pytest.raises(InputError, match=says):
            model.price(*arguments)
    group = model.group
    with pytest.raises(InputError, match="no collective library"):
        collective_model(group, "mpi")
    for algorithm, kind, name in [("nvls", "all_reduce", "a100"), ("tree", "all_gather", "h100")]:
        usual = node_group(load_device(name), nodes=1, devices_per_node=8)
        with pytest.raises(InputError):
            collective_time(kind, 1e6, 8, usual, algorithm=algorithm)


@pytest.mark.parametrize("device", FITTED_DEVICES)
def test_shipped_curves_increase_and_name_their_source(device):
    curves = load_curves(device)
    assert {(k, "nccl") for k in KINDS} <= {(c.kind, c.library) for c in curves.curves}
    for curve in curves.curves:
        times = curve.seconds(np.geomspace(1, 1e10, 400))
        assert (np.diff(times) >= 0).all()
        assert curve.source.endswith((".csv", ".csv.gz", "size)"))
        assert curve.points >= 15


@needs_shared
@pytest.mark.parametrize("device", FITTED_DEVICES)
def test_shipped_curves_are_what_the_command_fits(device, tmp_path):
    from simtool.calibration.fit_collectives import fit_device, write_curves

    written = write_curves(fit_device(SHARED / "data", device), tmp_path)
    shipped, fresh = load_curves(device), written.read_text()
    assert f'"device": "{device}"' in fresh
    assert len(shipped.curves) == fresh.count('"knot_bytes"')


@needs_shared
def test_errors_stay_where_the_documentation_says():
    from simtool.calibration.report_collectives import check_table, error_table

    rows = [r for r in error_table(SHARED / "data") if r.device == "h200" and r.library in ("vllm", "nccl")]
    assert np.median([r.held_out[0] for r in rows]) < 0.04
    checks = {r.name: r for r in check_table(SHARED / "data")}
    assert checks["H200 of apex_plus (other machine, other NCCL)"].median < 0.06
    assert checks["a100-80g NCCL from h200 by link ratios"].median < 0.2
