"""What explain says of a step is what the simulator takes for it."""

import numpy as np
import pytest

from simtool.plan import Parallel, Pool, Scheduler
from simtool.simulator.batch_text import parse_batch
from simtool.simulator.compile import compile_engine
from simtool.simulator.explain import explain_step
from simtool.simulator.run import simulate_engines
from simtool.workload import make_workload
from tests.lowering.synthetic import HOST, hardware, llama_8b, mixture

CASES = [
    (llama_8b(), Pool(device="synthetic")),
    (llama_8b(), Pool(device="synthetic", parallel=Parallel(tp=2, pp=2))),
    (llama_8b(), Pool(device="synthetic", scheduler=Scheduler(async_scheduling=True))),
    (mixture(latent=True), Pool(device="synthetic", parallel=Parallel(tp=2, ep=2))),
]


@pytest.mark.parametrize(("arch", "pool"), CASES)
def test_a_lone_request_takes_the_explained_steps(arch, pool):
    prompt, output = 1024, 65
    spec = compile_engine(arch, pool, hardware(), host=HOST)
    workload = make_workload(np.zeros(1), np.array([prompt], np.int32), np.array([output], np.int32))
    result = simulate_engines([spec], workload)
    step_s = float(result.finish_s[0] - result.first_token_s[0]) / (output - 1)
    middle = explain_step(arch, pool, hardware(), parse_batch(f"decode:1x{prompt + output // 2}"), host=HOST)
    sends = sum(row.seconds for row in middle.rows if row.name.startswith("stage_"))
    assert step_s == pytest.approx(middle.seconds, rel=1e-3, abs=2 * sends)
    first = explain_step(arch, pool, hardware(), parse_batch(f"prefill:1x{prompt}"), host=HOST)
    assert result.first_token_s[0] == pytest.approx(first.seconds, rel=0.02)
