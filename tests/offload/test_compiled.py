"""The compiled walk and the interpreted one give the same bytes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

from simtool.simulator.offload.store import expert_store
from simtool.simulator.offload.walk import walk
from tests.offload.making import POLICIES, mistaken, priced, routed


def digest() -> str:
    """One hash over every policy on small stores."""
    total = hashlib.sha256()
    for seed, policy in enumerate(POLICIES.values()):
        needs = routed(seed, steps=12, batch=1 + seed % 3)
        guess = mistaken(needs, seed, 6)
        for slots, shared, host in ((2, False, None), (5, True, 4), (9, True, None)):
            store = expert_store(3, 6, 100, slots, shared=shared, staging=2, host=host)
            done = walk(store, policy, needs, priced(3, 6), guess=guess, records=1000)
            total.update(done.end_s.tobytes() + done.stall_s.tobytes() + done.step_counts.tobytes())
            total.update(done.transfers.arrive_s.tobytes())
    return total.hexdigest()


def test_compiled_equals_interpreted() -> None:
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    program = "from tests.offload.test_compiled import digest; print(digest())"
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == digest()
