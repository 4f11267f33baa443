"""What a profiling run says of its machine, and what the profile makes of it."""

import pytest

torch = pytest.importorskip("torch", reason="profiling needs torch")

from simtool.calibration.described import described_device  # noqa: E402
from simtool.calibration.measured_set import MeasuredSet  # noqa: E402
from simtool.calibration.profiling.host_times import host_times  # noqa: E402
from simtool.calibration.profiling.machine import machine_facts  # noqa: E402
from simtool.calibration.profiling.self_description import device_facts, memory_bytes  # noqa: E402
from simtool.hardware.measured_device import MeasuredDevice, device_of  # noqa: E402
from tests.hardware.own_profile import rows  # noqa: E402


def measured(**more):
    tables = (rows("gemm", "fp32", 1.0),)
    return MeasuredSet(
        **{"device": "cpu-x-1t", "library": "torch", "version": "1", "source": "", "tables": tables} | more
    )


def test_a_cpu_is_a_process_and_the_machine_has_some():
    facts = device_facts("cpu", "A CPU")
    assert (facts["device_kind"], facts["device_label"]) == ("cpu", "A CPU")
    assert 2**28 < facts["device_memory_bytes"] == memory_bytes()
    assert facts["device_count"] >= 1
    assert set(facts) <= set(machine_facts("cpu"))


def test_the_facts_make_a_device():
    entry = described_device(measured(machine=device_facts("cpu", "A CPU")))
    assert entry is not None
    device = device_of(MeasuredDevice(name="cpu-x-1t", **entry), "cpu")
    assert device.usable_bytes == memory_bytes()
    assert device.peak_flops("fp32") > 0


@pytest.mark.parametrize(
    "without",
    [
        {"device": "h200"},
        {"tables": ()},
        {"tables": (rows("sampling", "fp32", 1.0),)},
        {"machine": {}},
    ],
)
def test_no_description_without_a_need_or_the_facts(without):
    assert described_device(measured(**{"machine": device_facts("cpu", "A CPU")} | without)) is None


def test_a_cpu_has_no_gap():
    seconds = {time.name: time.seconds for time in host_times("cpu")}
    assert seconds["gap"] == 0.0 < seconds["eager_launch"]
