"""`simulate` without a plan file takes vLLM's own defaults for the GPU."""

import pytest

from simtool.asking import default_scheduler
from simtool.hardware.device import load_device


@pytest.mark.parametrize(
    ("device", "seqs", "tokens"),
    [("h200", 1024, 8192), ("h100", 1024, 8192), ("b200", 1024, 8192), ("a100-80g", 256, 2048), ("l4", 256, 2048)],
)
def test_default_scheduler_of_a_gpu(device: str, seqs: int, tokens: int) -> None:
    scheduler = default_scheduler(load_device(device))
    assert (scheduler.max_num_seqs, scheduler.max_num_batched_tokens) == (seqs, tokens)
