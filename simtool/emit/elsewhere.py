"""Elsewhere: the targets that a refusal may point to, because they route the plan's replicas as it says."""

from __future__ import annotations

from simtool.emit.subject import Subject

_DYNAMO = _LLMD = ("vllm", "sglang")


def routing_targets(subject: Subject, engine: str) -> str:
    """ "--target kubernetes or dynamo": those of `engine` that have the plan's router ("": none has)."""
    router, several = subject.plan.router, len(subject.replicas) > 1
    found = ["kubernetes"] if router == "round_robin" or not several else []
    if engine in _DYNAMO and (router != "prefix_aware" or caches(subject)):
        found.append("dynamo")
    if engine in _LLMD and fits_llmd(subject) and (router == "prefix_aware" or not several):
        found.append("llm-d")
    if router != "prefix_aware" or engine == "sglang" or not several:  # nginx, or SGLang's own router
        found.append(engine)
    return f"--target {' or '.join(found)}" if found else ""


def either(*hints: str) -> str:
    """The hints that are one, joined."""
    return ", or ".join(hint for hint in hints if hint)


def caches(subject: Subject) -> bool:
    """Whether every pool keeps prefixes."""
    return all(pool.kv.prefix_caching for pool in subject.plan.pools)


def fits_llmd(subject: Subject) -> bool:
    """One pool of a hub's model whose replicas fit on a node: what simtool writes for llm-d."""
    one_node = all(len(replica.nodes) == 1 for replica in subject.replicas)
    return len(subject.plan.pools) == 1 and one_node and not subject.model.startswith("/")
