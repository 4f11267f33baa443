"""One example for each target, compared as text. `python -m tests.emit.test_golden` writes the files anew."""

from pathlib import Path

import pytest

from simtool.emit import Request, emit
from tests.emit.plans import EXAMPLE, TWO_NODES, plan
from tests.emit.test_benchmark import traffic

GOLDEN = Path(__file__).parent / "golden"
CASES = {
    "vllm": (EXAMPLE, Request(target="vllm", engine_version="0.33.0")),
    "vllm-0.19.1": (EXAMPLE, Request(target="vllm", engine_version="0.19.1")),
    "vllm-two-nodes": (TWO_NODES, Request(target="vllm", engine_version="0.33.0")),
    "sglang": (EXAMPLE, Request(target="sglang", engine_version="0.5.23")),
    "trtllm": (EXAMPLE, Request(target="trtllm", engine_version="1.2.0")),
    "kubernetes": (EXAMPLE, Request(target="kubernetes", engine_version="0.33.0")),
    "kubernetes-two-nodes": (TWO_NODES, Request(target="kubernetes", engine_version="0.33.0")),
    "dynamo": (EXAMPLE, Request(target="dynamo", engine_version="0.33.0")),
    "llm-d": (plan(replicas=2, router="prefix_aware"), Request(target="llm-d", engine_version="0.33.0")),
    "torchrun": (EXAMPLE, Request(target="torchrun"), traffic(num_prompts=4)),
}


def written(name: str) -> str:
    made = emit(*CASES[name])
    return "".join(f"=== {file}\n{text}" for file, text in made.files.items())


@pytest.mark.parametrize("name", CASES)
def test_an_example_of_each_target_is_as_recorded(name):
    assert written(name) == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


if __name__ == "__main__":
    for case in CASES:
        (GOLDEN / f"{case}.txt").write_text(written(case), encoding="utf-8")
