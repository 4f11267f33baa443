"""A refusal's hint leads to something that works: every flag that it names is followed."""

import re
from dataclasses import replace
from itertools import product

import pytest

from simtool.emit import Request, emit
from simtool.emit.emission import engine_of
from simtool.errors import InputError
from simtool.plan import Parallel, Plan, Pool
from tests.emit.plans import EXAMPLE, plan, with_kv, with_pool, with_scheduler

MOE = plan("qwen3-30b-a3b", parallel=Parallel(tp=4))
ALONE = with_pool(with_scheduler(EXAMPLE, max_num_batched_tokens=16384), replicas=1)
SPLIT = replace(EXAMPLE, pools=(EXAMPLE.pools[0], Pool(device="h200")))
OVER_NODES = replace(with_pool(EXAMPLE, parallel=Parallel(pp=16)), cluster="4x8xh200")


def refusal(asked: Plan, request: Request) -> InputError | None:
    try:
        emit(asked, request)
    except InputError as error:
        return error
    return None


def followed(hint: str, asked: Plan, request: Request) -> list[tuple[Plan, Request]]:
    """What the hint says, one case an alternative; words after "with" belong to the flag before them."""
    cases = []
    for flag, text, rest in re.findall(
        r"--(target|router|scheduling|engine) ([a-z0-9_, -]+?)(?=, or --| with |$)( with [^,]*)?", hint
    ):
        for value in re.findall(r"[a-z][a-z0-9_-]*", re.sub(r"\bor\b|, whose.*|, which.*", " ", text)):
            case = changed(asked, request, flag, value)
            for other, chosen in re.findall(r"--(router) (\S+)", rest):
                case = changed(*case, other, chosen)
            cases.append(case)
    return cases


def changed(asked: Plan, request: Request, flag: str, value: str) -> tuple[Plan, Request]:
    match flag:
        case "target":
            containers = ("kubernetes", "dynamo", "llm-d")
            return asked, Request(target=value, engine=engine_of(request)[0] if value in containers else "")
        case "engine":
            return asked, replace(request, engine=value)
        case "router":
            return replace(asked, router=value), request
    return with_scheduler(asked, scheduling=value), request


SCHEDULES = [
    (with_scheduler(ALONE, scheduling=scheduling), Request(target=target))
    for scheduling, target in product(
        ("no_chunking", "prefill_first", "static"), ("vllm", "sglang", "trtllm", "kubernetes", "dynamo", "llm-d")
    )
]
ROUTERS = [
    (replace(with_kv(base, prefix_caching=caching), router=router), Request(target=target, engine=engine))
    for base, router, caching, (target, engine) in product(
        (EXAMPLE, SPLIT, OVER_NODES),
        ("round_robin", "least_outstanding", "prefix_aware"),
        (True, False),
        (
            ("vllm", ""),
            ("sglang", ""),
            ("trtllm", ""),
            ("kubernetes", "vllm"),
            ("kubernetes", "sglang"),
            ("kubernetes", "trtllm"),
            ("dynamo", "vllm"),
            ("dynamo", "sglang"),
            ("llm-d", "vllm"),
            ("llm-d", "sglang"),
        ),
    )
    if base is not OVER_NODES or "trtllm" not in (target, engine)  # which spans no nodes
]
REST = [
    (with_pool(MOE, parallel=Parallel(tp=4, ep=2)), Request(target="vllm")),
    (with_kv(EXAMPLE, watermark=0.01), Request(target="sglang")),
    (with_scheduler(EXAMPLE, policy="priority"), Request(target="trtllm")),
    (with_pool(MOE, parallel=Parallel(tp=2, dp=2)), Request(target="trtllm")),
    (with_pool(MOE, parallel=Parallel(dp=2, pp=2)), Request(target="sglang")),
]


@pytest.mark.parametrize("cases", [SCHEDULES, ROUTERS, REST], ids=["schedules", "routers", "rest"])
def test_every_hint_leads_to_something_that_works(cases):
    refused = [(error, *case) for case in cases if (error := refusal(*case)) is not None]
    assert len(refused) > 4
    for error, asked, request in refused:
        ways = followed(error.hint, asked, request)
        assert ways or "--" not in error.hint, error
        for way in ways:
            assert refusal(*way) is None, f"{error}\nleads to {way[1].target}, {way[0].router}: {refusal(*way)}"


def test_a_refused_router_names_what_has_it():
    for router, there in (("least_outstanding", "dynamo or vllm"), ("prefix_aware", "dynamo or llm-d")):
        error = refusal(replace(EXAMPLE, router=router), Request(target="kubernetes"))
        assert error is not None
        assert error.hint == f"--target {there}, or --router round_robin"


def test_a_static_batch_is_not_sent_to_where_it_is_refused():
    for target in ("vllm", "sglang"):
        error = refusal(with_scheduler(EXAMPLE, scheduling="static"), Request(target=target))
        assert error is not None
        assert "torchrun" not in error.hint
        assert ("vllm" in error.hint) is False
