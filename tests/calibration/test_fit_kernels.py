"""The fitting command: same rows, same bytes; host-bound tables; latent attention without its GEMMs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simtool.calibration.aiconfigurator_mla import ELEMENTWISE_S, with_absorbed, without_gemms
from simtool.calibration.fit_kernels import Fitted, fit_rows, main, replace_host_bound, report_lines, write_profiles
from simtool.calibration.measurements import Measurements
from simtool.hardware.device import load_device
from simtool.hardware.profile_file import read_profile
from tests.calibration.test_fit_law import LAW, synthetic_decodes, synthetic_gemms

H200 = load_device("h200")


@pytest.fixture(autouse=True)
def quick_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about how good a residual is."""
    monkeypatch.setattr("simtool.calibration.fit_family.STARTS", 1)
    monkeypatch.setattr("simtool.calibration.fit_family.SWEEPS", 3)


def decode_fit(library: str, extra_s: float = 0.0, device: str = "h200") -> Fitted:
    """With a noise of 2%: on rows without any the solver goes on to its last step, where it could stop."""
    rows = synthetic_decodes(LAW)
    noise = np.exp(0.02 * np.random.default_rng(0).standard_normal(len(rows.seconds)))
    return fit_rows(load_device(device), library, replace(rows, seconds=(rows.seconds + extra_s) * noise))


def modules(seconds: float) -> Measurements:
    ones = np.ones(6)
    return Measurements(
        family="mla_decode",
        dtype="bf16",
        dims={"batch": 2.0 ** np.arange(6), "heads": 16 * ones, "kv_len": 1024 * ones},
        seconds=seconds * ones,
        lines=np.arange(6) + 2,
        table="module",
        kernels=("mla",),
    )


def test_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_profiles([fit_rows(H200, "vllm", synthetic_gemms(0.02))], tmp_path / folder)
    (first,), (second,) = (list((tmp_path / folder).iterdir()) for folder in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    assert read_profile(first).fits["gemm", "bf16"].law.exponent == pytest.approx(LAW.exponent, rel=0.1)


def test_a_host_bound_table_gives_way_to_another_library() -> None:
    vllm, sglang = replace_host_bound([decode_fit("vllm", extra_s=100e-6), decode_fit("sglang")])
    assert vllm.library == "vllm"
    assert "host-bound" in vllm.table.note
    assert vllm.table.fit.law == sglang.table.fit.law
    assert not sglang.table.note


def test_transfer_error_of_equal_laws_is_small(tmp_path: Path) -> None:
    fits = [decode_fit("vllm"), decode_fit("vllm", device="h100-sxm")]
    write_profiles(fits, tmp_path)
    fit = read_profile(tmp_path / "h200__vllm.json.gz").fits["attention_decode", "bf16"]
    assert np.all(np.abs(fit.transfer_interval) < 0.4)


def test_attention_is_the_module_less_its_gemms() -> None:
    def clock(m: np.ndarray, n: np.ndarray, k: float) -> np.ndarray:
        return np.full(len(m), 10e-6)

    left = without_gemms(modules(100e-6), clock)
    assert left.seconds == pytest.approx(np.full(6, 100e-6 - 30e-6 - ELEMENTWISE_S))
    nothing = without_gemms(modules(35e-6), clock)
    assert len(nothing.seconds) == 0
    assert [refusal.line for refusal in nothing.refused] == [2, 3, 4, 5, 6, 7]


def test_a_kernel_table_gains_the_absorbed_projections() -> None:
    kernel = modules(10e-6)
    whole = with_absorbed(kernel, H200)
    assert np.all(whole.seconds > kernel.seconds + 2e-6)
    assert np.all(np.diff(whole.seconds) >= 0)


def test_the_report_has_a_line_a_fit(capsys: pytest.CaptureFixture[str]) -> None:
    lines = report_lines()
    assert len(lines) > 90
    assert main(["--report"]) == 0
    assert capsys.readouterr().out.splitlines() == lines


def test_half_a_command_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main(["--data", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("are given together") == 2
