"""A workload from your own arrays, refused when it makes no sense."""

import numpy as np

import simtool as st

arrival_s = np.array([0.0, 0.5, 0.5, 2.0])
prompts = np.array([900, 120, 4000, 64], np.int32)
answers = np.array([100, 300, 20, 1], np.int32)
workload = st.make_workload(arrival_s, prompts, answers, source="four requests")

pool = st.Pool(device="l4", scheduler=st.Scheduler(max_num_batched_tokens=2048))
plan = st.Plan(model="llama-3.1-8b", cluster="1xl4", pools=(pool,), weight_dtype="fp8")
result = st.simulate(plan, workload)
order = np.argsort(result.finish_s)
print("they finish in the order", order.tolist())
print("each after its first token:", bool((result.finish_s >= result.first_token_s).all()))

too_big = st.Plan(model="llama-3.1-70b", cluster="1xl4", pools=(st.Pool(device="l4"),))
try:
    st.simulate(too_big, workload)
except st.InfeasibleError as error:
    print("infeasible, because of:", error.constraint)
