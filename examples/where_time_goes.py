"""One decode step of a 70B model on four H200: which operators take the time, and what bounds them."""

import simtool as st

pool = st.Pool(device="h200", parallel=st.Parallel(tp=4))
plan = st.Plan(model="llama-3.1-70b", cluster="4xh200", pools=(pool,))
step = st.explain(plan, "decode:32x2048")
print("operators by time:", ", ".join(row.name for row in step.rows[:4]))
bound = max(("compute", step.compute_s), ("memory", step.memory_s), ("links", step.link_s), key=lambda pair: pair[1])
print("bound by:", bound[0])
print("floor <= prediction:", step.t_lower_s <= step.seconds)
