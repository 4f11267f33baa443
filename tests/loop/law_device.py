"""A made-up CPU whose every kernel follows one law: as a bench that is calibrated, and as a runner that executes."""

import numpy as np

from simtool.calibration.executor.batch import StepOutcome
from simtool.calibration.measured_set import HostTime
from simtool.calibration.points import Timing
from simtool.calibration.profiling.bench import Extra
from simtool.calibration.profiling.design import Limits, work_of
from simtool.calibration.profiling.planning import HOST_SUBJECT
from simtool.hardware.fitted_work import FAMILY_TERMS
from simtool.models.lowering import head_operators, token_operators
from simtool.models.lowering_attention import decode_operators, prefill_operators
from simtool.models.lowering_mlp import expert_operators
from simtool.models.lowering_shard import make_shard
from simtool.plan import Parallel
from tests.calibration.executor.fake_runner import FakeRunner
from tests.hardware.own_profile import CPU_MACHINE

PEAK, BANDWIDTH, LAUNCH_S = 4e10, 8e9, 4e-6  # a CPU core
ROUGH = 0.7  # kernels reach so much of the peak and of the bandwidth
STEP_BASE_S, STEP_PER_REQUEST_S = 6e-4, 2e-5
MEMORY_BOUND = ("elementwise", "embedding", "sampling")


def law_seconds(flops, moved_bytes):
    """Seconds of one kernel: a launch, then what it computes or what it moves, whichever is longer."""
    return LAUNCH_S + np.maximum(flops / PEAK, moved_bytes / BANDWIDTH) / ROUGH


class LawBench:
    """The device as `simtool calibrate` sees it, on a clock that moves by what is measured."""

    device = "cpu-law-1t"
    version = "1"

    def __init__(self, point_cost_s):
        self.clock_s = 0.0
        self.point_cost_s = point_cost_s

    def now(self):
        return self.clock_s

    def usual_dtypes(self):
        return ("fp32",)

    def facts(self, dtypes):
        return {"date": "2026-01-01", "design_flops_fp32": PEAK, **CPU_MACHINE, "device_label": "Law"}

    def limits(self, facts, dtype):
        return Limits(
            seconds=0.05,
            call_bytes=1e9,
            flops_per_s=PEAK,
            attention_flops_per_s=PEAK,
            bytes_per_s=BANDWIDTH,
            most_tokens=1024.0,
            most_batch=64.0,
            most_prefill_batch=1.0,
            longest_context=2048.0,
        )

    def kernel(self, family, dtype, shape_kernel):
        return "add+rms_norm" if shape_kernel == "norm" else shape_kernel or "kernel"

    def measure(self, point):
        self.clock_s += self.point_cost_s
        work = work_of([point])
        return Timing(seconds=float(law_seconds(work.flops[0], work.hbm_bytes[0])), spread=0.0, repeats=5)

    def sentinel(self):
        self.clock_s += self.point_cost_s
        return 1e-3

    def extras(self):
        times = [
            HostTime(name="step_base", seconds=STEP_BASE_S, spread=0.0, source="the law"),
            HostTime(name="step_per_request", seconds=STEP_PER_REQUEST_S, spread=0.0, source="the law"),
            HostTime(name="gap", seconds=0.0, spread=0.0, source="the law"),
        ]
        return [Extra(group="host", subject=HOST_SUBJECT, run=lambda: times)]


class LawRunner(FakeRunner):
    """The device as the executor sees it: one replica on one process. Tokens as FakeRunner's."""

    def __init__(self, architecture, num_blocks, block_size):
        super().__init__(1, num_blocks, block_size, lambda batches: sum(self.families(batches[0]).values()))
        self.shard = make_shard(architecture, Parallel(), 0)

    def collect(self, lane):
        batch = self.flying[lane][0]
        outcome = super().collect(lane)
        host_s = STEP_BASE_S + STEP_PER_REQUEST_S * len(batch.slots)
        return StepOutcome(
            tokens=outcome.tokens,
            seconds=outcome.seconds + host_s,
            host_s=host_s,
            family_s=self.families(batch),
        )

    def families(self, batch):
        tokens, sampled = float(batch.tokens), float(sum(slot.samples for slot in batch.slots))
        operators = token_operators(self.shard, np.array([tokens])) + expert_operators(self.shard, np.array([tokens]))
        if batch.decodes:
            lengths = [slot.context + 1.0 for slot in batch.decodes]
            operators += decode_operators(self.shard, np.array([float(len(lengths))]), np.array([np.mean(lengths)]))
        for slot in batch.prefills:
            operators += prefill_operators(
                self.shard, np.ones(1), np.array([float(slot.new)]), np.array([float(slot.context)])
            )
        if sampled:
            operators += head_operators(self.shard, np.array([sampled]))
        found = {}
        for operator in operators:
            found[operator.family] = found.get(operator.family, 0.0) + operator.count * self.seconds(operator)
        return found

    def seconds(self, operator):
        launches = max(operator.launches, 1) if operator.family == "elementwise" else 1
        if operator.family in MEMORY_BOUND:
            dims = {"bytes": np.atleast_1d(operator.hbm_bytes) / launches, "kind": np.zeros(1)}
            work = FAMILY_TERMS[operator.family].work(dims, operator.dtype)
        else:
            dims = {name: np.atleast_1d(np.asarray(value, np.float64)) for name, value in operator.dims.items()}
            if operator.family == "moe":
                dims["matrices"] = np.full(1, 3.0)
            work = FAMILY_TERMS[operator.family].work(dims, operator.dtype)
        return launches * float(law_seconds(work.flops[0], work.hbm_bytes[0]))
