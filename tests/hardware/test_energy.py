"""Power and price."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.errors import InputError
from simtool.hardware.device import device_names, load_device
from simtool.hardware.energy import busy_watts, describe_energy, dynamic_joules, joules_per_byte, joules_per_flop
from simtool.hardware.price import cluster_price_per_hour, price_per_hour
from simtool.models.operators import Operator
from tests.shared_data import SHARED, needs_shared

shares = st.floats(0, 1)


def operator(flops, hbm_bytes):
    work = {"flops": np.array([flops]), "hbm_bytes": np.array([hbm_bytes])}
    return Operator(name="g", family="gemm", count=1, dtype="bf16", dims={}, **work)


@settings(deadline=None)
@given(name=st.sampled_from(device_names()), compute=shares, memory=shares, more=shares)
def test_power_lies_between_idle_and_tdp_and_grows_with_work(name, compute, memory, more):
    device = load_device(name)
    low, high = (
        busy_watts(device, np.array([compute]), np.array([memory])),
        busy_watts(device, np.array([min(1.0, compute + more)]), np.array([memory])),
    )
    assert device.idle_w <= low[0] <= high[0] <= device.tdp_w


@settings(deadline=None)
@given(flops=st.floats(0, 1e14), hbm_bytes=st.floats(0, 1e11), seconds=st.floats(1e-6, 1))
def test_joules_are_the_power_above_idle_times_time(flops, hbm_bytes, seconds):
    device = load_device("h100")
    compute = np.array([flops / device.peak_flops("bf16") / seconds])
    memory = np.array([hbm_bytes / device.hbm_bytes_per_s / seconds])
    expected = (busy_watts(device, compute, memory) - device.idle_w) * seconds
    assert dynamic_joules(operator(flops, hbm_bytes), np.array([seconds]), device) == pytest.approx(expected)


def test_energy_scales_with_work():
    device = load_device("a100")
    assert 0.5e-12 < joules_per_flop(device, "bf16") < 3e-12
    assert 50e-12 < joules_per_byte(device) < 300e-12
    facts = describe_energy(device)
    assert json.loads(json.dumps(facts)) == facts


def test_price_defaults_and_overrides():
    h200 = load_device("h200")
    assert price_per_hour(h200) == h200.price_per_hour
    assert price_per_hour(h200, {"H200-SXM": 1.5}) == 1.5
    assert cluster_price_per_hour({"h200": 8, "l4": 2}, {"h200": 2.0, "l4": 0}) == 16.0


def test_price_errors():
    with pytest.raises(InputError, match="no public price"):
        price_per_hour(load_device("h20"))
    with pytest.raises(InputError, match="is no price"):
        cluster_price_per_hour({"h200": 1}, {"h200": float("nan")})
    with pytest.raises(InputError, match="did you mean"):
        cluster_price_per_hour({"h200": 1}, {"h201": 1.0})


@needs_shared
def test_the_fit_gives_the_shipped_shares():
    from simtool.calibration.fit_power import fit_shares, mean_watts, read_power
    from simtool.hardware.energy import FITTED_SHARES

    samples = read_power(SHARED / "data")
    fitted = fit_shares(samples)
    assert fitted.memory == pytest.approx(FITTED_SHARES.memory, rel=0.01)
    error = np.abs(mean_watts(samples, FITTED_SHARES) / samples.power - 1)
    assert np.median(error) < 0.02
