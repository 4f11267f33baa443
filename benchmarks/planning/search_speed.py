"""Search speed: the two questions of issue 2, closed with gap 0, in CPU seconds.

    OMP_NUM_THREADS=1 python benchmarks/planning/search_speed.py [qwen3-32b | llama-3.1-405b | deepseek-v3]

The clock starts after one small search has loaded the compiled kernels (a first run compiles them once, minutes).
"""

from __future__ import annotations

import sys
import time

import numpy as np

from simtool.planners.question import Question, Space
from simtool.planners.search import plan
from simtool.planners.space import plan_label
from simtool.workload import make_workload

# model → cluster, concurrency, prompts, weight dtype; all 1024 tokens in, 128 out, closed loop, output tokens/s/GPU
CASES = {
    "qwen3-32b": ("8xh200", 10, 640, "fp8"),
    "llama-3.1-405b": ("64xh100", 256, 1000, "auto"),
    "deepseek-v3": ("64xh100", 512, 1000, "auto"),
}


def question(model: str, *, prompts: int = 0) -> Question:
    cluster, concurrency, usual, dtype = CASES[model]
    n = prompts or usual
    work = make_workload(
        np.zeros(n), np.full(n, 1024, np.int32), np.full(n, 128, np.int32), max_concurrency=concurrency
    )
    return Question(model=model, devices=cluster, workload=work, space=Space(weight_dtype=(dtype,)))


def main() -> None:
    models = sys.argv[1:] or list(CASES)
    plan(question("qwen3-32b", prompts=4))
    print(
        f"{'model':16} {'CPU s':>6} {'wall s':>6} {'legal':>6} {'simulated':>9} {'gap':>5} {'tok/s/GPU':>9}  best plan"
    )
    for model in models:
        cpu, wall = time.process_time(), time.monotonic()
        answer = plan(question(model))
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
        print(
            f"{model:16} {cpu:6.1f} {wall:6.1f} {answer.legal:6} {answer.simulated:9} {answer.gap:5.1%}"
            f" {answer.best.objective or 0.0:9.1f}  {plan_label(answer.best.plan)}"
        )


if __name__ == "__main__":
    main()
