"""Laws of prices on devices that nobody measured."""

import gzip
import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.errors import InputError
from simtool.hardware.cluster import parse_cluster
from simtool.hardware.device import Device, load_device
from simtool.hardware.fitted import FittedCostModel, load_cost_model
from simtool.hardware.own_profiles import load_own_profiles, profile_files
from simtool.hardware.profile_choice import choose
from simtool.hardware.profile_file import profile_bytes
from simtool.hardware.transfer_file import TRANSFER_NAME, load_shipped_transfers, parse_transfers
from tests.hardware.own_profile import write_small
from tests.hardware.test_cost import column, decode, experts, gemm, prefill

FILE = Path(str(files("simtool.hardware").joinpath("profiles", TRANSFER_NAME)))
OPERATORS = (
    gemm(column(1, 64, 1024, 16384), 8192, 8192),
    decode(column(1, 64, 512), column(4096)),
    prefill(2, column(128, 2048, 16384), column(0.0)),
    experts(column(1, 64, 4096), "bf16"),
)
UNMEASURED = ("h100-sxm", "b200", "l4", "mi300x", "a100-pcie-40g", "rtx-3090", "h20")


@pytest.fixture(scope="module")
def shipped() -> FittedCostModel:
    return load_cost_model(load_device("h100-sxm"), parse_cluster("2xh100-sxm").group_of(), "vllm")


def on(model: FittedCostModel, device: Device) -> FittedCostModel:
    """The same profiles and laws, asked for `device`."""
    return replace(model, device=device, choices={})


def twin_of(name: str, **changes: float) -> Device:
    """A device with the specifications of a measured one, which has no profile of its own."""
    return replace(load_device(name), name=f"{name}-twin", **changes)


def faster(device: Device, what: str, factor: float) -> Device:
    if what == "flops":
        return replace(device, flops={dtype: rate * factor for dtype, rate in device.flops.items()})
    return replace(device, **{what: getattr(device, what) * factor})


@settings(max_examples=80, deadline=None)
@given(
    name=st.sampled_from(UNMEASURED),
    what=st.sampled_from(("hbm_bytes_per_s", "flops", "boost_hz")),
    factor=st.floats(1.0, 8.0),
)
def test_a_faster_device_is_never_slower(shipped: FittedCostModel, name: str, what: str, factor: float) -> None:
    device = load_device(name)
    for operator in OPERATORS:
        before, after = (on(shipped, d).price(operator) for d in (device, faster(device, what, factor)))
        assert before.provenance == "transferred"
        assert np.all(after.seconds <= before.seconds * (1 + 1e-9)), operator.family


@pytest.mark.parametrize("name", ["h200", "l40s", "a100-80g"])
def test_a_twin_of_a_measured_device_has_its_prices(shipped: FittedCostModel, name: str) -> None:
    for operator in OPERATORS:
        own, twin = (on(shipped, device).price(operator) for device in (load_device(name), twin_of(name)))
        assert twin.provenance == "transferred"
        assert twin.seconds == pytest.approx(own.seconds, rel=0.04), operator.family


@pytest.mark.parametrize("name", UNMEASURED)
def test_prices_lie_between_the_floor_and_a_hundred_times_it(shipped: FittedCostModel, name: str) -> None:
    operators = (
        gemm(column(16, 1024, 16384), 8192, 8192),
        decode(column(64, 512), column(8192)),
        prefill(2, column(2048, 16384), column(0.0)),
        experts(column(256, 16384), "bf16"),
    )
    for operator in operators:
        cost = on(shipped, load_device(name)).price(operator)
        assert np.all(cost.seconds >= cost.roofline_s), operator.family
        assert np.all(cost.seconds < 100 * cost.roofline_s), operator.family


def test_no_work_takes_no_time(shipped: FittedCostModel) -> None:
    for operator in (gemm(column(0, 64), 4096, 4096), decode(column(0, 8), column(100)), experts(column(0, 8), "bf16")):
        cost = shipped.price(operator)
        assert (cost.seconds[0], cost.lower[0], cost.upper[0]) == (0.0, 0.0, 0.0)
        assert cost.seconds[1] > 0


@pytest.mark.parametrize("name", UNMEASURED)
def test_the_interval_holds_the_price(shipped: FittedCostModel, name: str) -> None:
    for operator in OPERATORS:
        cost = on(shipped, load_device(name)).price(operator)
        assert np.all((cost.lower > 0) & (cost.lower < cost.seconds) & (cost.seconds < cost.upper)), operator.family


def test_the_interval_grows_with_the_distance_to_what_was_measured(shipped: FittedCostModel) -> None:
    operator = gemm(column(16384), 16384, 16384)  # compute-bound on all of them
    bandwidth = load_device("h200").hbm_bytes_per_s
    devices = [twin_of("h200", hbm_bytes_per_s=share * bandwidth) for share in (1.0, 0.7, 0.5, 0.35, 0.25)]
    costs = [on(shipped, device).price(operator) for device in [*devices, load_device("b200")]]
    widths = [float(np.log(cost.upper / cost.lower)[0]) for cost in costs]
    assert widths == sorted(widths)
    assert widths[-1] > 1.5 * widths[0]


def test_a_dtype_without_tables_has_a_wider_interval(shipped: FittedCostModel) -> None:
    model = on(shipped, load_device("b200"))
    for build in (lambda dtype: gemm(column(4096), 8192, 8192, dtype), lambda dtype: experts(column(4096), dtype)):
        measured, substituted = model.price(build("fp8")), model.price(build("nvfp4"))
        assert "nvfp4 priced as fp8" in substituted.source
        assert substituted.upper / substituted.seconds > 1.1 * measured.upper / measured.seconds


def test_far_beyond_every_table_it_is_a_roofline_guess(shipped: FittedCostModel) -> None:
    near, far = shipped.price(gemm(column(64), 8192, 8192)), shipped.price(gemm(column(64), 4e6, 8192))
    assert far.provenance == "roofline"
    assert far.upper / far.seconds > near.upper / near.seconds


@pytest.mark.parametrize("library", ["vllm", "sglang", "trtllm"])
def test_the_own_library_comes_before_a_nearer_device(shipped: FittedCostModel, library: str) -> None:
    """An A40, measured under vLLM alone, is nearest to an RTX 3090."""
    choice = choose(load_device("rtx-3090"), library, "gemm", "bf16", shipped.profiles, shipped.devices)
    assert choice is not None
    assert choice.fit.library == library


def test_a_users_profile_of_a_like_device_moves_the_price(tmp_path: Path, shipped: FittedCostModel) -> None:
    path = write_small(tmp_path / "mine.json", slower=4.0, device="h100-pcie")
    own = load_own_profiles(profile_files(path))
    devices = {**shipped.devices, "h100-pcie": load_device("h100-pcie")}
    model = replace(shipped, profiles=(*own, *shipped.profiles), devices=devices, choices={})
    operator = gemm(column(64, 1024), 8192, 8192)
    with_own, without = model.price(operator), shipped.price(operator)
    assert np.all(with_own.seconds > 1.1 * without.seconds)
    assert str(path) in with_own.source
    other = write_small(tmp_path / "torch.json", slower=4.0, device="h100-pcie", library="torch")
    alone = load_cost_model(
        load_device("h100-sxm"), shipped.group, "torch", load_own_profiles(profile_files(other))
    ).price(operator)
    assert alone.provenance == "transferred"  # no pooled law of that library: its one fit at specification ratios
    assert alone.source.startswith("h100-pcie/torch/gemm/bf16")


def test_the_shipped_laws_are_small_and_of_shipped_profiles(shipped: FittedCostModel) -> None:
    assert FILE.stat().st_size < 20_000
    laws = load_shipped_transfers()
    assert {family for _, family, _ in laws} >= {"gemm", "moe", "attention_prefill", "attention_decode", "elementwise"}
    fits = {(p.library, *key) for p in shipped.profiles for key, fit in p.fits.items() if not fit.note}
    assert set(laws) <= fits
    for law in laws.values():
        assert np.all(law.left_out[:, 0] < 0)
        assert np.all(law.left_out[:, 1] > 0)


def test_damaged_laws_are_refused() -> None:
    good = json.loads(gzip.decompress(FILE.read_bytes()))
    assert profile_bytes(good, packed=True) == FILE.read_bytes()
    wrong = json.loads(json.dumps(good))
    wrong["laws"][0]["exponent"] = 0.5
    crooked = json.loads(json.dumps(good))
    crooked["left_out"][0]["log_interval"].pop()
    for table in (good | {"schema_version": 9}, good | {"left_out": []}, good | {"surprise": 1}, wrong, crooked, {}):
        with pytest.raises(InputError):
            parse_transfers(profile_bytes(table, packed=True), "x")
    for data in (FILE.read_bytes()[:100], b"", profile_bytes(good, packed=False).replace(b"launch", b"lunch")):
        with pytest.raises(InputError):
            parse_transfers(data, "x")
