"""Plans that the tests write."""

from dataclasses import replace

from simtool.plan import KvPolicy, Parallel, Plan, Pool, Scheduler


def plan(model="llama-3.1-8b", cluster="8xh200", router="round_robin", weight_dtype="auto", **pool) -> Plan:
    """One pool; the keywords are the pool's."""
    pools = (Pool(device="h200", **pool),)
    return Plan(model=model, cluster=cluster, pools=pools, router=router, weight_dtype=weight_dtype)


EXAMPLE = plan(
    replicas=2,
    parallel=Parallel(tp=2),
    scheduler=Scheduler(max_num_seqs=128, max_num_batched_tokens=4096, max_model_len=16384),
    kv=KvPolicy(prefix_caching=True),
)
TWO_NODES = plan("deepseek-v3", "2x8xh200", parallel=Parallel(tp=8, pp=2))


def with_scheduler(base: Plan, **changes) -> Plan:
    return with_pool(base, scheduler=replace(base.pools[0].scheduler, **changes))


def with_kv(base: Plan, **changes) -> Plan:
    return with_pool(base, kv=replace(base.pools[0].kv, **changes))


def with_pool(base: Plan, **changes) -> Plan:
    return replace(base, pools=(replace(base.pools[0], **changes),))
