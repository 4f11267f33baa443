"""A device under test without hardware: a known law, and a clock that moves by what is measured."""

from simtool.calibration.measured_set import HostTime
from simtool.calibration.points import TimedCopy, Timing
from simtool.calibration.profiling.bench import CannotMeasureError, Extra
from simtool.calibration.profiling.design import Limits, work_of
from simtool.calibration.profiling.planning import HOST_SUBJECT, copy_subject

PEAK, BANDWIDTH, LAUNCH_S = 1e12, 1e11, 5e-6
POINT_COST_S = 0.1


class FakeBench:
    """Prices a point as launch + compute + memory; `interrupt_at` and `fail_at` are counts of measured points."""

    device = "fake"
    version = "0"

    def __init__(self, *, interrupt_at=None, too_large=lambda point: False):
        self.clock_s = 100.0
        self.measured = []
        self._interrupt_at = interrupt_at
        self._too_large = too_large

    def now(self):
        return self.clock_s

    def usual_dtypes(self):
        return ("bf16",)

    def facts(self, dtypes):
        return {"date": "2026-01-01", "design_flops": PEAK}

    def limits(self, facts, dtype):
        return Limits(
            seconds=0.05,
            call_bytes=1e9,
            flops_per_s=float(facts["design_flops"]),
            attention_flops_per_s=float(facts["design_flops"]),
            bytes_per_s=BANDWIDTH,
            most_tokens=4096.0,
            most_batch=128.0,
            most_prefill_batch=8.0,
            longest_context=8192.0,
        )

    def kernel(self, family, dtype, shape_kernel):
        if dtype == "fp8":
            raise CannotMeasureError("no fp8 here")
        return "add+rms_norm" if shape_kernel == "norm" else shape_kernel or "kernel"

    def measure(self, point):
        if self._interrupt_at == len(self.measured):
            raise KeyboardInterrupt
        self.clock_s += POINT_COST_S
        if self._too_large(point):
            raise CannotMeasureError("out of memory")
        self.measured.append(point)
        work = work_of([point])
        seconds = LAUNCH_S + float(work.flops[0]) / PEAK + float(work.hbm_bytes[0]) / BANDWIDTH
        return Timing(seconds=seconds, spread=0.01, repeats=5)

    def sentinel(self):
        self.clock_s += POINT_COST_S
        return 1e-3

    def extras(self):
        def host():
            self.clock_s += 1.0
            return [HostTime(name="eager_launch", seconds=1e-6, spread=0.1)]

        def copy(size):
            self.clock_s += 0.5
            return [TimedCopy(name="hbm", size_bytes=size, timing=Timing(seconds=1e-5, spread=0.0, repeats=3))]

        sizes = (1024.0, 4096.0)
        return [
            Extra(group="host", subject=HOST_SUBJECT, run=host),
            *[Extra(group="copies", subject=copy_subject("hbm", s), run=lambda s=s: copy(s)) for s in sizes],
        ]
