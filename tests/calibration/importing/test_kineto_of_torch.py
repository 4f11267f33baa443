"""What torch's profiler writes here and now is read as its documentation says."""

from pathlib import Path

import pytest

from simtool.calibration.importing import import_measurements
from simtool.errors import InputError
from tests.calibration.importing.test_kineto import table

torch = pytest.importorskip("torch", reason="its profiler writes the trace")


def test_a_real_trace_of_the_cpu_gives_its_gemms_and_attention(tmp_path: Path) -> None:
    left, right = torch.randn(64, 256), torch.randn(256, 128)
    layer = torch.nn.Linear(256, 512)
    query, key = torch.randn(1, 4, 96, 64), torch.randn(1, 4, 96, 64)
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.no_grad(), torch.profiler.profile(activities=cpu, record_shapes=True) as profiler:
        for _ in range(6):
            left @ right
            layer(left)
            torch.nn.functional.scaled_dot_product_attention(query, key, key, is_causal=True)
            torch.nn.functional.scaled_dot_product_attention(query[:, :, :1], key, key)
            torch.softmax(left, dim=-1)
    profiler.export_chrome_trace(str(tmp_path / "cpu.json"))
    with pytest.raises(InputError, match="--device"):
        import_measurements("kineto", tmp_path / "cpu.json")
    (found,) = import_measurements("kineto", tmp_path / "cpu.json", device="my-cpu")
    gemm = table(found, "gemm")
    shapes = set(zip(*(gemm.dims[name].tolist() for name in "mnk"), strict=True))
    assert shapes == {(64.0, 128.0, 256.0), (64.0, 512.0, 256.0)}
    assert gemm.dtype == "fp32"
    assert set(table(found, "attention_prefill").dims["seq"].tolist()) == {96.0}
    assert set(table(found, "attention_decode").dims["kv_len"].tolist()) == {96.0}
    assert "aten::softmax 6" in str(found.machine["left_out"])
