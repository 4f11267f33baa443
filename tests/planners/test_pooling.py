"""Several models on one cluster: all SLOs met at the least devices, or a clear reason why not."""

from __future__ import annotations

import pytest

from simtool.errors import InfeasibleError, InputError
from simtool.metrics import Slo
from simtool.planners.evaluate import meets
from simtool.planners.pooling import plan_shared
from simtool.planners.question import Space
from tests.planners import standin

SPACE = Space(max_num_seqs=(16,), max_num_batched_tokens=(256,), tp=(1, 2), pp=(1,))
SLO = Slo(ttft_s=0.1, tpot_s=0.05, attainment=0.9)


def _question(rate: float, seed: int = 0, **changes):
    work = standin.workload(n=30, rate=rate, outputs=8, seed=seed)
    return standin.question(work, **{"devices": "4xfast", "slo": SLO, "space": SPACE, **changes})


def test_two_models_share_and_meet_their_slos():
    questions = [_question(20.0), _question(40.0, seed=1)]
    tools = [standin.backend(fast=4), standin.backend(fast=4, weights=1000.0)]
    shared = plan_shared(questions, backends=tools)
    assert shared.devices <= 4
    assert shared.certificate.gap == 0
    for tenant, question in zip(shared.tenants, questions, strict=True):
        assert meets(tenant.run, question.slo)
    assert shared.devices == sum(tenant.plan.devices for tenant in shared.tenants)


def test_too_small_a_cluster_says_how_many_devices_are_needed():
    questions = [_question(2000.0), _question(2000.0, seed=1)]
    with pytest.raises(InfeasibleError, match="devices"):
        plan_shared(questions, backends=[standin.backend(fast=4)] * 2)


def test_what_is_missing_is_named():
    with pytest.raises(InputError, match="SLO"):
        plan_shared([_question(5.0, slo=Slo())], backends=[standin.backend()])
    with pytest.raises(InputError, match="one cluster"):
        plan_shared([_question(5.0), _question(5.0, devices="2xfast")], backends=[standin.backend()] * 2)
