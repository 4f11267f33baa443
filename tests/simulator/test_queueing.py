"""Where the model reduces to a queue with a known answer, it gives that answer."""

from __future__ import annotations

import numpy as np
import pytest

from simtool.plan import Scheduler
from simtool.simulator.run import simulate_engines
from simtool.workload import make_workload
from tests.simulator.engines import law_engine

ONE = Scheduler(scheduling="static", max_num_seqs=1, max_num_batched_tokens=512)
REQUESTS = 200_000


def sojourn_s(output: np.ndarray, rate: float, seed: int) -> tuple[float, float]:
    """Mean time in system of a one-server queue whose service is 1 ms an output token, and its mean service."""
    rng = np.random.default_rng(seed)
    arrival_s = np.cumsum(rng.exponential(1 / rate, len(output)))
    workload = make_workload(arrival_s, np.ones(len(output), np.int32), output.astype(np.int32))
    engine = law_engine(num_blocks=4000, scheduler=ONE, base_s=1e-3, token_s=0.0, kv_s=0.0, pair_s=0.0, host_s=0.0)
    result = simulate_engines([engine], workload)
    step_s = 1e-3 + 1e-6  # the head's microsecond
    return float((result.finish_s - result.sent_s).mean()), float(output.mean() * step_s)


def test_m_d_1() -> None:
    """Pollaczek-Khinchine for a constant service: W = S + rho S / (2 (1 - rho))."""
    service_s = 20 * 1.001e-3
    rate = 0.7 / service_s
    mean_s, _ = sojourn_s(np.full(REQUESTS, 20), rate, 1)
    assert mean_s == pytest.approx(service_s + 0.7 * service_s / (2 * 0.3), rel=0.02)


def test_m_g_1_geometric() -> None:
    """Pollaczek-Khinchine with a geometric service (the discrete M/M/1): W = S + rate E[S^2] / (2 (1 - rho))."""
    rng = np.random.default_rng(5)
    output = rng.geometric(1 / 40, REQUESTS)
    rate = 0.6 / (40 * 1.001e-3)
    mean_s, service_s = sojourn_s(output, rate, 2)
    second = float((output**2).mean()) * 1.001e-3**2
    assert mean_s == pytest.approx(service_s + rate * second / (2 * (1 - rate * service_s)), rel=0.03)


def test_processor_sharing() -> None:
    """A decode step whose time grows with its requests is M/G/1-PS: W = S / (1 - rho) whatever the law of S."""
    rng = np.random.default_rng(7)
    knobs = Scheduler(max_num_seqs=256, max_num_batched_tokens=512)
    engine = law_engine(num_blocks=9000, scheduler=knobs, base_s=0.0, token_s=1e-5, kv_s=0.0, pair_s=0.0, host_s=0.0)
    output = np.where(rng.random(REQUESTS // 2) < 0.9, 50, 550).astype(np.int32)
    service_s = float(output.mean()) * 1.1e-5
    rate = 0.6 / service_s
    arrival_s = np.cumsum(rng.exponential(1 / rate, len(output)))
    result = simulate_engines([engine], make_workload(arrival_s, np.ones(len(output), np.int32), output))
    assert float((result.finish_s - result.sent_s).mean()) == pytest.approx(service_s / 0.4, rel=0.04)


def test_littles_law() -> None:
    """Time-average number in the system = arrival rate x mean time in the system."""
    rng = np.random.default_rng(9)
    n = 5_000
    workload = make_workload(
        np.cumsum(rng.exponential(0.2, n)),
        rng.integers(1, 200, n).astype(np.int32),
        rng.integers(1, 200, n).astype(np.int32),
    )
    result = simulate_engines([law_engine()], workload, record_steps=True)
    span_s = result.finish_s.max()
    times = np.sort(np.concatenate([result.sent_s, result.finish_s]))
    change = np.concatenate([np.ones(n), -np.ones(n)])[np.argsort(np.concatenate([result.sent_s, result.finish_s]))]
    area = float((np.cumsum(change)[:-1] * np.diff(times)).sum())
    assert area / span_s == pytest.approx(n / span_s * (result.finish_s - result.sent_s).mean(), rel=1e-9)
