"""Mixtral in bf16 on one A100-40G, which does not hold it: its experts stay in host memory, under four policies."""

from dataclasses import replace

import numpy as np

import simtool as st

requests = st.synthesise(num_requests=8, input_len=128, output_len=16, request_rate=0.5, rng=np.random.default_rng(0))
requests = replace(requests, expert_routing="mixtral-8x7b,locality=0.4")
pool = st.Pool(device="a100-40g", scheduler=st.Scheduler(max_num_seqs=4, max_num_batched_tokens=512))
plan = st.Plan(model="mixtral-8x7b", cluster="1xa100-40g", pools=(pool,))
try:
    st.simulate(plan, requests)
except st.InfeasibleError as error:
    print("all in HBM:", error.constraint)

seconds = {}
for policy in ("zero-copy", "lru", "static-cpu", "static-cheaper"):
    offload = st.ExpertOffload(policy=policy, slots=2)
    result = st.simulate(replace(plan, pools=(replace(pool, offload=offload),)), requests)
    seconds[policy] = result.finish_s.max()
    print(f"{policy}: {result.offload.hit_rate:.0%} of the experts needed were in HBM")
print("fastest first:", ", ".join(sorted(seconds, key=seconds.__getitem__)))
