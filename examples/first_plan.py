"""Ask for the best plan, simulate it again, and read the numbers."""

import numpy as np

import simtool as st

workload = st.synthesise(
    num_requests=60,
    input_len="lognormal:600:0.6",
    output_len=100,
    request_rate=4.0,
    rng=np.random.default_rng(0),
)
question = st.Question(
    model="llama-3.1-8b",
    devices="2xh200",
    workload=workload,
    objective="throughput-per-gpu",
    slo=st.parse_slo("ttft:500,tpot:30"),
    space=st.Space(max_num_batched_tokens=(8192,)),
)
answer = st.plan(question)
best = answer.best.plan
print(f"best: {best.pools[0].replicas} x TP {best.pools[0].parallel.tp} on {best.devices} {best.pools[0].device}")
print(f"of {answer.legal} legal plans: {answer.simulated} simulated, {answer.pruned} pruned, gap {answer.gap:.0%}")

# A plan file replays exactly.
again = st.simulate(best, workload)
metrics = st.serving_metrics(again, question.slo)
print("replayed the same:", np.array_equal(again.finish_s, answer.result.finish_s))
print("within the SLO:", f"{metrics['slo_attainment']:.0%}")
