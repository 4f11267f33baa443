"""The layers of a step of a real plan under an Overlap."""

from dataclasses import replace

import pytest

from simtool.errors import InputError
from simtool.hardware.cluster import parse_cluster
from simtool.models.config import load_architecture
from simtool.overlaps import STOCK
from simtool.plan import Overlap, Parallel, Pool
from simtool.simulator.batch_text import parse_batch
from simtool.simulator.overlap.step import overlapped_step
from simtool.simulator.priced_cluster import priced_cluster

HARDWARE, _ = priced_cluster(parse_cluster("2xh200"), "vllm")
ARCH = load_architecture("llama-3.1-8b")
POOL = Pool(device="h200", parallel=Parallel(tp=2))


def step(overlap, batch="prefill:1x1024", hardware=HARDWARE):
    return overlapped_step(ARCH, POOL, hardware, parse_batch(batch), overlap)


def test_no_overlap_is_one_kernel_after_the_other():
    found = step(Overlap())
    assert found.seconds == pytest.approx(found.serial_s)
    assert sum(time.kind.count for time in found.layers) == len(ARCH.layers)


def test_a_step_of_few_tokens_runs_without_the_overlap():
    overlap = replace(STOCK["two-batch"], min_tokens=512)
    assert step(overlap).seconds < step(Overlap()).seconds
    small = step(overlap, "decode:64x1024")
    assert small.overlap == Overlap()
    assert small.seconds == pytest.approx(small.serial_s)


def test_a_cpu_runs_one_kernel_at_a_time():
    found = HARDWARE["h200"]
    cpu = {"h200": replace(found, device=replace(found.device, kind="cpu"))}
    with pytest.raises(InputError, match="one kernel at a time"):
        step(STOCK["fused"], hardware=cpu)
