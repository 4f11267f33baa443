"""A made-up answer with the shape of a real one, so that the page can be tested without a simulation."""

from __future__ import annotations

import numpy as np

from simtool.hardware.cluster import parse_cluster
from simtool.metrics import Result, Slo
from simtool.plan import Parallel, Plan, Pool, Scheduler
from simtool.planners.question import Answer, Candidate, Question
from simtool.report.contents import Contents, LoadPoint, OperatorTime, StepTime
from simtool.workload import make_workload

SLO = Slo(ttft_s=1.0, tpot_s=0.05)


def sample_plan(tp: int = 4, pp: int = 1, replicas: int = 2, tokens: int = 8192) -> Plan:
    pool = Pool(
        device="h200",
        replicas=replicas,
        parallel=Parallel(tp=tp, pp=pp),
        scheduler=Scheduler(max_num_batched_tokens=tokens),
    )
    return Plan(model="llama-3.1-70b", cluster="8xh200", pools=(pool,))


def sample_result(requests: int = 800) -> Result:
    random = np.random.default_rng(1)
    sent_s = np.cumsum(random.exponential(0.1, requests))
    wait_s, outputs = random.exponential(0.1, requests), random.integers(20, 300, requests).astype(np.int32)
    prefill_s = random.uniform(0.05, 0.4, requests)
    finish_s = sent_s + wait_s + prefill_s + (outputs - 1) * random.normal(0.022, 0.002, requests)
    starts_s = np.arange(0.0, finish_s.max(), 0.05)
    wave = 1 + np.sin(starts_s / 9)
    steps = {
        "replica": (np.arange(len(starts_s)) % 2).astype(float),
        "start_s": starts_s,
        "end_s": starts_s + 0.04,
        "iterations": np.full(len(starts_s), 2.0),
        "prefill_tokens": np.where(np.arange(len(starts_s)) % 5 == 0, 2048.0, 0.0),
        "decode_requests": np.round(30 * wave),
        "kv_blocks": np.round(4000 * wave),
        "waiting": np.round(3 * wave),
        "running": np.round(30 * wave),
    }
    return Result(
        sent_s=sent_s,
        scheduled_s=sent_s + wait_s,
        first_token_s=sent_s + wait_s + prefill_s,
        finish_s=finish_s,
        input_tokens=np.full(requests, 900, np.int32),
        output_tokens=outputs,
        cached_tokens=np.zeros(requests, np.int32),
        replica=(np.arange(requests) % 2).astype(np.int32),
        preemptions=np.zeros(requests, np.int32),
        itl_bins=np.array([0.02, 0.03]),
        itl_counts=np.array([float(outputs.sum())]),
        steps=steps,
        energy_j=3.1e5,
        busy_s=80.0,
        num_steps=5000,
        devices=8,
        kv_blocks=(12000, 12000),
    )


def sample_metrics(per_gpu: float = 180.0, tpot_ms: float = 22.0) -> dict[str, float]:
    return {
        "duration": 90.0,
        "completed": 800,
        "request_throughput": 8.9,
        "request_goodput": 8.8,
        "slo_attainment": 0.993,
        "output_throughput": per_gpu * 8,
        "mean_ttft_ms": 310.0,
        "p99_ttft_ms": 820.0,
        "mean_tpot_ms": tpot_ms,
        "p99_tpot_ms": tpot_ms * 1.2,
        "mean_e2el_ms": 3900.0,
        "p99_e2el_ms": 7200.0,
    }


def sample_candidates() -> list[Candidate]:
    """Twelve simulated plans, the second the best, and forty that were pruned."""
    candidates = []
    for number, (tp, pp, replicas) in enumerate([(4, 1, 2), (8, 1, 1), (2, 1, 4), (4, 2, 1), (2, 4, 1), (2, 2, 2)]):
        for tokens in (2048, 8192):
            per_gpu = 180.0 - 9 * number - (tokens == 2048) * 5
            metrics = sample_metrics(per_gpu, 22 + 6 * number * (-1) ** number / 2 + (tokens == 8192))
            candidates.append(
                Candidate(
                    plan=sample_plan(tp, pp, replicas, tokens),
                    bound=per_gpu * 1.12,
                    objective=per_gpu,
                    metrics=metrics,
                    meets_slo=number < 4,
                    status="best" if number == 0 and tokens == 8192 else "simulated",
                )
            )
    shared = {"objective": None, "metrics": None, "meets_slo": None, "reason": "its bound does not beat the best plan"}
    for number in range(40):
        plan = sample_plan(2, 1, 1 + number % 3)
        candidates.append(Candidate(plan=plan, bound=175.0 - 3 * number, status="pruned", **shared))
    return candidates


def sample_answer() -> Answer:
    workload = make_workload(np.zeros(4), np.full(4, 900, np.int32), np.full(4, 128, np.int32))
    candidates = sample_candidates()
    return Answer(
        question=Question(model="llama-3.1-70b", devices="8xh200", workload=workload, slo=SLO),
        best=next(candidate for candidate in candidates if candidate.status == "best"),
        result=sample_result(),
        intervals={"output_throughput": (1300.0, 1560.0), "mean_ttft_ms": (260.0, 380.0), "mean_tpot_ms": (20.0, 25.0)},
        candidates=tuple(candidates),
        illegal={"heads divide by tp": 12, "weights fit in memory": 7},
        legal=len(candidates),
        simulated=12,
        pruned=40,
        gap=0.0,
        provenance={"gemm": "measured", "attention_decode": "interpolated", "collective": "roofline"},
        wall_s=3.2,
    )


def sample_contents() -> Contents:
    answer = sample_answer()
    operators = (
        OperatorTime(name="gate_up", family="gemm", seconds=4e-3, roofline_s=3.1e-3, provenance="measured"),
        OperatorTime(name="down", family="gemm", seconds=2e-3, roofline_s=1.6e-3, provenance="measured"),
        OperatorTime(name="qkv", family="gemm", seconds=1.1e-3, roofline_s=0.8e-3, provenance="measured"),
        OperatorTime(
            name="attention", family="attention_decode", seconds=2.2e-3, roofline_s=1.7e-3, provenance="measured"
        ),
        OperatorTime(name="all-reduce", family="collective", seconds=1.5e-3, roofline_s=0.5e-3, provenance="roofline"),
        OperatorTime(name="host", family="host", seconds=0.9e-3, roofline_s=0.0, provenance="measured"),
    )
    step = StepTime(label="decode 64 × 2,048", operators=operators, seconds=11.7e-3)
    assert answer.best.metrics is not None
    return Contents(
        plan=answer.best.plan,
        result=answer.result,
        metrics=answer.best.metrics,
        cluster=parse_cluster("8xh200"),
        slo=SLO,
        intervals=answer.intervals,
        answer=answer,
        steps=(step, step),
        load=tuple(
            LoadPoint(
                load=rate,
                attainment=min(1.0, 1.6 - rate / 15),
                metrics={"p99_ttft_ms": 300 * 1.2**rate, "p99_tpot_ms": 20 * 1.05**rate},
            )
            for rate in (2.0, 5.0, 9.0, 13.0, 18.0)
        ),
        stage_layers={0: ("all layers",)},
        load_now=9.0,
        price_per_hour={"h200": 3.5},
        price_source="Prices: a made-up list.",
        facts={"model": "llama-3.1-70b", "workload": "800 requests, about 900 in and 160 out", "hardware": "8 × H200"},
        provenance=answer.provenance,
        version="test",
    )
