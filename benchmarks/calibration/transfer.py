"""How wrong is a price on a device that nobody measured? Every device of the data sets is left out in turn:
python -m benchmarks.calibration.transfer [--data DIR] [--tables] [--write docs/validation.md]

Each table of the left-out device is priced from the shipped fits of the other devices in the same library, three ways:
nearest: by the nearest device's fit at specification ratios. best: by that one of the devices' fits at specification
ratios that turns out best, which nobody can know. pooled: by simtool's rule (hardware/transfer.py), its law fitted
without the device. covered: rows inside the pooled rule's 90% interval, which the errors on the other devices give.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.validation.comparison import arguments, data_folder
from benchmarks.validation.summary import rewritten
from simtool.calibration.aiconfigurator import SYSTEMS
from simtool.calibration.aiconfigurator_mla import gemm_by, read_modules
from simtool.calibration.fit_errors import relative
from simtool.calibration.fit_family import predicted_log
from simtool.calibration.fit_kernels import all_measurements
from simtool.calibration.fit_transfer_law import Sample, sample_of
from simtool.calibration.leave_one_out import Outcome, interval_of, left_out, table_quantiles
from simtool.calibration.measurements import Measurements
from simtool.hardware.device import Device, load_device
from simtool.hardware.profile_choice import computes_in
from simtool.hardware.profile_file import load_shipped_profiles
from simtool.hardware.transfer import specification_distance2, transfer_interval

Array = NDArray[np.float64]
BEGIN, END = "<!-- transfer: begin -->", "<!-- transfer: end -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Errors log(measured / predicted) of one table by rule, [N] each, and which rows the interval covers, [N]."""

    outcome: Outcome
    errors: dict[str, Array]
    covered: NDArray[np.bool_]

    @property
    def sample(self) -> Sample:
        """The table."""
        return self.outcome.sample


def read_samples(data: Path) -> list[Sample]:
    """The tables that the shipped fits were made from."""
    fits = {(p.device, p.library, *key): fit for p in load_shipped_profiles() for key, fit in p.fits.items()}
    tables = list(all_measurements(data))
    for system, name in SYSTEMS.items():
        for library in sorted({library for device, library, _, _ in fits if device == name}):
            fit = fits.get((name, library, "gemm", "bf16"))
            if fit is None:
                continue
            rates = fit.peak_flops, fit.bandwidth_bytes_per_s

            def clock(rows: Measurements, fit=fit, rates=rates) -> Array:
                return predicted_log(fit.law, fit.residual, rows, *rates)[0]

            device = load_device(name)
            modules = read_modules(data / "aiconfigurator", system, library, device, gemm_by(clock))
            tables += [(device, library, rows) for rows in modules]
    found = []
    for device, library, rows in tables:
        fit = fits.get((device.name, library, rows.family, rows.dtype))
        if fit is not None and not fit.note and fit.table == rows.table and len(rows.seconds):
            found.append(sample_of(device, fit, rows))
    return found


def at_specification_ratios(source: Sample, sample: Sample) -> Array:
    """Log seconds of the rows of `sample` by the fit of another device."""
    fit, compute = source.fit, computes_in(source.fit.family, source.fit.dtype)
    peak = fit.peak_flops * sample.device.peak_flops(compute) / source.device.peak_flops(compute)
    bandwidth = fit.bandwidth_bytes_per_s * sample.device.hbm_bytes_per_s / source.device.hbm_bytes_per_s
    residual = None if fit.family == "elementwise" else fit.residual  # a cache's share is the device's own
    return predicted_log(fit.law, residual, sample.rows, peak, bandwidth)[0]


def nearness(one: Device, other: Device) -> tuple[float, ...]:
    """The order in which profiles are chosen: compute capability, architecture, specifications."""
    compute = abs(math.log(one.peak_flops("fp16") / other.peak_flops("fp16")))
    bandwidth = abs(math.log(one.hbm_bytes_per_s / other.hbm_bytes_per_s))
    unlike = one.compute_capability != other.compute_capability
    return float(unlike), float(one.architecture != other.architecture), compute + bandwidth


def judge(outcome: Outcome, outcomes: Sequence[Outcome]) -> Judged:
    """The outcome beside single-source rules; its interval is that of outcomes on other devices."""
    sample, measured = outcome.sample, np.log(outcome.sample.rows.seconds)
    singles = {source.device.name: measured - at_specification_ratios(source, sample) for source in outcome.sources}
    nearest = min(outcome.sources, key=lambda source: nearness(source.device, sample.device))
    apart = [one for one in outcomes if one.sample.device.name != sample.device.name]
    families = {one.sample.fit.family for one in apart}
    ends = interval_of(apart if sample.fit.family in families else outcomes, sample.fit.family)[outcome.regime]
    like = min(outcome.sources, key=lambda source: specification_distance2(source.device, sample.device))
    own = like.fit.intervals[outcome.regime]
    ends = transfer_interval(own, ends, specification_distance2(like.device, sample.device))
    return Judged(
        outcome=outcome,
        errors={
            "nearest": singles[nearest.device.name],
            "best": min(singles.values(), key=lambda error: float(np.median(np.abs(error)))),
            "pooled": outcome.error,
        },
        covered=(outcome.error >= ends[:, 0]) & (outcome.error <= ends[:, 1]),
    )


def table_lines(judged: Sequence[Judged]) -> Iterator[str]:
    """One line a table: median and p95 by rule, bias of the pooled one, coverage."""
    head = f"{'family':18}{'dtype':10}{'left out':14}{'library':8}"
    yield f"{head}{'nearest':>13}{'best':>14}{'pooled':>14}{'bias':>7}{'in':>5}"
    for one in sorted(judged, key=lambda j: (j.sample.fit.family, j.sample.fit.dtype, j.sample.device.name)):
        library, family, dtype = one.sample.kind
        pairs = "".join(f"{m:8.1%}{p95:6.0%}" for m, p95 in map(relative, one.errors.values()))
        bias = -float(np.median(one.errors["pooled"]))
        name = f"{family:18}{dtype:10}{one.sample.device.name:14}{library:8}"
        yield f"{name}{pairs}{bias:+7.2f}{one.covered.mean():5.0%}"


def summary(judged: Sequence[Judged]) -> Iterator[str]:
    """Markdown: a row a family, then a row a device; tables of a row count alike."""
    yield "| family or device left out | tables | nearest: median (p95) | best in hindsight | pooled | bias | covered |"
    yield "|---|---|---|---|---|---|---|"
    families = sorted({one.sample.fit.family for one in judged})
    devices = sorted({one.sample.device.name for one in judged})
    groups = [(family, [j for j in judged if j.sample.fit.family == family]) for family in families]
    groups += [(device, [j for j in judged if j.sample.device.name == device]) for device in devices]
    for name, part in [*groups, ("all", judged)]:
        columns = " | ".join(_errors([j.errors[rule] for j in part]) for rule in ("nearest", "best", "pooled"))
        bias = -float(np.median([np.median(j.errors["pooled"]) for j in part]))
        covered = float(np.mean([j.covered.mean() for j in part]))
        yield f"| {name} | {len(part)} | {columns} | {math.expm1(bias):+.0%} | {covered:.0%} |"


def _errors(parts: Sequence[Array]) -> str:
    """Median and p95 of |predicted / measured - 1| over tables that count alike."""
    median, p95 = table_quantiles([np.abs(np.expm1(-part)) for part in parts], (0.5, 0.95))
    return f"{median:.0%} ({p95:.0%})"


def main() -> None:
    """Print the summary, with --tables a line a table too; or put the summary into a file."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--tables", action="store_true", help="print a line a table too")
    parser.add_argument("--write", type=Path, help="file whose numbers are replaced")
    outcomes = left_out(read_samples(data_folder(parser)))
    judged = [judge(outcome, outcomes) for outcome in outcomes]
    options, numbers = parser.parse_args(), "\n".join(summary(judged))
    if options.tables:
        print("\n".join(table_lines(judged)), end="\n\n")
    if options.write is None:
        print(numbers)
    else:
        target = options.write
        target.write_text(rewritten(target.read_text(encoding="utf-8"), numbers, BEGIN, END), encoding="utf-8")


if __name__ == "__main__":
    main()
