"""Two models share one pool of GPUs: how many replicas of each, so that both keep their SLO on the fewest devices."""

import numpy as np

from simtool.metrics import Slo
from simtool.planners.pooling import plan_shared
from simtool.planners.question import Question, Space
from simtool.workload import make_workload


def question(model: str, requests_per_s: float, seed: int) -> Question:
    """100 requests around 500 tokens in and 100 out."""
    rng = np.random.default_rng(seed)
    arrival_s = np.cumsum(rng.exponential(1 / requests_per_s, 100))
    prompts = rng.integers(300, 700, 100).astype(np.int32)
    answers = rng.integers(50, 150, 100).astype(np.int32)
    return Question(
        model=model,
        devices="8xa100-80g",
        workload=make_workload(arrival_s, prompts, answers),
        slo=Slo(ttft_s=1.0, tpot_s=0.06, attainment=0.9),
        space=Space(tp=(1, 2, 4), pp=(1,), max_num_batched_tokens=(2048,)),
    )


shared = plan_shared([question("llama-3.1-8b", 10.0, 1), question("llama-3.1-70b", 1.0, 2)])
for tenant in shared.tenants:
    pools = ", ".join(f"{pool.replicas} replica(s) of tp{pool.parallel.tp}" for pool in tenant.plan.pools)
    print(f"{tenant.plan.model}: {pools}; SLO kept: {tenant.run.attainment >= 0.9}")
print(f"{shared.devices} of 8 devices; proof: {shared.certificate.status}, gap {shared.certificate.gap:.0%}")
