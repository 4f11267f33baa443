"""Sanity: a wrong unit is found and named, real tables pass, and nothing outruns its device."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.calibration.collective_samples import Samples
from simtool.calibration.measurements import Measurements
from simtool.calibration.sanity import checked
from simtool.calibration.sanity_collectives import bus_bytes, checked_samples
from simtool.errors import InputError
from simtool.hardware.device import load_device
from simtool.hardware.fitted_work import FAMILY_TERMS

H200 = load_device("h200")
ROWS = 400


def synthetic(family: str, seed: int) -> Measurements:
    """A table of random shapes at 30 to 80% of the H200's roofline plus a launch."""
    random = np.random.default_rng(seed)

    def sizes(low: int, high: int) -> np.ndarray:
        return 2.0 ** random.integers(low, high, ROWS)

    ones = np.ones(ROWS)
    dims = {"m": sizes(0, 14), "n": sizes(9, 15), "k": sizes(9, 15)}
    if family == "attention_decode":
        shape = {"heads": 32 * ones, "kv_heads": 8 * ones, "head_dim": 128 * ones, "window": 0 * ones}
        dims = {**shape, "batch": sizes(0, 9), "kv_len": sizes(4, 15)}
    work = FAMILY_TERMS[family].work(dims, "bf16")
    roofline = np.maximum(work.flops / H200.peak_flops("bf16"), work.hbm_bytes / H200.hbm_bytes_per_s)
    return Measurements(
        family=family,
        dtype="bf16",
        dims=dims,
        seconds=4e-6 + roofline / random.uniform(0.3, 0.8, ROWS),
        lines=np.arange(ROWS) + 2,
        table="synthetic",
        kernels=("law",),
    )


def spoiled(rows: Measurements, share: float, factor: float, seed: int) -> tuple[Measurements, set[int]]:
    random = np.random.default_rng(seed)
    wrong = random.permutation(ROWS)[: int(np.ceil(share * ROWS))]
    seconds = rows.seconds.copy()
    seconds[wrong] *= factor
    return dataclasses.replace(rows, seconds=seconds), {int(line) for line in rows.lines[wrong]}


def named_line(error: InputError) -> int:
    return int(str(error.value).rpartition(" ")[2])


@pytest.mark.parametrize("family", ["gemm", "attention_decode"])
@pytest.mark.parametrize("device", [H200, None], ids=["known", "unknown"])
def test_a_right_table_loses_no_row(family: str, device: object) -> None:
    rows = synthetic(family, 1)
    assert checked(rows, device).refused == ()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    family=st.sampled_from(["gemm", "attention_decode"]),
    share=st.floats(0.05, 0.5),
    factor=st.sampled_from([1e3, 1e-3, 1e6]),
    seed=st.integers(0, 10_000),
)
def test_mixed_units_are_refused_by_a_row_that_is_wrong(family: str, share: float, factor: float, seed: int) -> None:
    rows, wrong = spoiled(synthetic(family, seed), share, factor, seed + 1)
    with pytest.raises(InputError) as caught:
        checked(rows, H200)
    assert named_line(caught.value) in wrong


@settings(max_examples=15, deadline=None, derandomize=True)
@given(share=st.floats(0.05, 0.4), factor=st.sampled_from([1e3, 1e-3]), seed=st.integers(0, 10_000))
def test_mixed_units_are_found_without_any_peak(share: float, factor: float, seed: int) -> None:
    rows, wrong = spoiled(synthetic("gemm", seed), share, factor, seed + 1)
    with pytest.raises(InputError) as caught:
        checked(rows, None)
    assert named_line(caught.value) in wrong


@pytest.mark.parametrize("factor", [1e3, 1e-3])
def test_a_whole_table_in_another_unit_is_refused(factor: float) -> None:
    rows = synthetic("gemm", 2)
    with pytest.raises(InputError, match="unit"):
        checked(dataclasses.replace(rows, seconds=rows.seconds * factor), H200)


@pytest.mark.parametrize("bad", [float("nan"), -1e-3, 0.0, 1e-9, 1e3])
def test_a_few_bad_rows_are_dropped_and_named(bad: float) -> None:
    rows = synthetic("gemm", 3)
    rows.seconds[[7, 70]] = bad
    kept = checked(rows, H200)
    assert len(kept.seconds) == ROWS - 2
    assert [refusal.line for refusal in kept.refused] == [9, 72]


def test_more_bytes_than_the_caches_can_hold_come_at_the_memorys_rate() -> None:
    """1 GiB of cache lines cannot be read at twice the HBM's bandwidth, 10 MiB can: they fit in L2."""
    sizes = np.repeat([2.0**30, 10 * 2.0**20], 100)
    table = Measurements(
        family="elementwise",
        dtype="bf16",
        dims={"bytes": sizes, "kind": np.zeros(200)},
        seconds=sizes / H200.hbm_bytes_per_s,
        lines=np.arange(200) + 2,
        table="t",
        kernels=(),
    )
    table.seconds[[5, 150]] /= 2.0
    assert [refusal.line for refusal in checked(table, H200).refused] == [7]


def samples(seconds: np.ndarray, size: np.ndarray, kind: str = "all_reduce") -> Samples:
    return Samples(
        kind=kind,
        library="nccl",
        ranks=8,
        size_bytes=size,
        seconds=seconds,
        source="comm.csv",
        lines=tuple(range(2, 2 + len(size))),
    )


SIZES = np.repeat(2.0 ** np.arange(8, 30), 4)
FAIR = 8e-6 + bus_bytes("all_reduce", 8, SIZES) / (0.8 * H200.scale_up_bytes_per_s)


def test_fair_collectives_pass_and_a_link_is_not_outrun() -> None:
    assert checked_samples(samples(FAIR, SIZES), H200).refused == ()
    fast = FAIR.copy()
    fast[-1] /= 4.0
    kept = checked_samples(samples(fast, SIZES), H200)
    assert [refusal.line for refusal in kept.refused] == [2 + len(SIZES) - 1]
    assert len(kept.seconds) == len(kept.lines) == len(SIZES) - 1
    fast[-8:] = FAIR[-8:] / 4.0
    with pytest.raises(InputError, match=f"comm.csv all_reduce line {2 + len(SIZES) - 8}"):
        checked_samples(samples(fast, SIZES), H200)


@pytest.mark.parametrize("factor", [1e3, 1e-3])
@pytest.mark.parametrize("device", [H200, None], ids=["known", "unknown"])
def test_collectives_of_two_units_are_refused_by_a_wrong_row(factor: float, device: object) -> None:
    wrong = np.random.default_rng(4).permutation(len(SIZES))[: len(SIZES) // 5]
    seconds = FAIR.copy()
    seconds[wrong] *= factor
    with pytest.raises(InputError) as caught:
        checked_samples(samples(seconds, SIZES), device)
    assert named_line(caught.value) in {2 + int(row) for row in wrong}
