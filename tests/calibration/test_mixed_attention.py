"""Decode attention beside prefill chunks: which kernels slow down, and by how much."""

import numpy as np
import pytest

from simtool.calibration.fit_mixed_attention import error, fit_exponent, read_groups
from simtool.explaining import explain
from simtool.hardware.fitted import MIXED_DECODE_EXPONENT
from simtool.plan import Plan, Pool
from tests.shared_data import SHARED, needs_shared


def decode_s(device: str, library: str, batch: str) -> float:
    plan = Plan(model="llama-3.1-8b", cluster=f"1x{device}", pools=(Pool(device=device),), kernel_library=library)
    return sum(row.seconds for row in explain(plan, batch).rows if row.name == "attention_decode")


@pytest.mark.parametrize(("device", "library", "factor"), [("rtx-4090", "vllm", 2.0), ("h200", "vllm", 1.0)])
def test_only_flash_attention_2_slows_down_by_the_root_of_the_group(device, library, factor):
    alone, beside = (decode_s(device, library, f"decode:32x1024{rest}") for rest in ("", "+prefill:1x512"))
    assert beside == pytest.approx(factor * alone)  # Llama-3.1-8B: 4 query heads a KV head


def test_exponent_of_a_made_up_table():
    prefill, decode = np.linspace(1, 2, 50), np.linspace(0.5, 3, 50)
    groups = {("made up", 8): (prefill + 8**0.7 * decode, prefill, decode)}
    assert fit_exponent(groups) == pytest.approx(0.7)
    assert error(groups["made up", 8], 8**0.7) < 1e-12


@needs_shared
def test_shipped_exponent_is_what_the_command_fits():
    assert fit_exponent(read_groups(SHARED / "data" / "llmservingsim")) == pytest.approx(MIXED_DECODE_EXPONENT)
