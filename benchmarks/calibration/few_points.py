"""How good is a fit from 50 to 400 points? Held-out error on public kernel tables, beside a smooth roofline alone and a
random forest: python -m benchmarks.calibration.few_points [--data DIR] [--write docs/validation.md]

universal: points drawn from the whole table. model: only the shapes of four models (the nearest that the table has;
MODELS below), so that tokens, batch and lengths vary. In both, all rows that were not drawn are predicted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.validation.comparison import arguments
from benchmarks.validation.summary import rewritten
from simtool.calibration.fit_errors import relative
from simtool.calibration.fit_family import predicted_log
from simtool.calibration.fit_kernels import LIBRARIES, SYSTEMS
from simtool.calibration.fit_profile import fit_table
from simtool.calibration.importing import import_measurements
from simtool.calibration.measurements import Measurements
from simtool.calibration.peaks import Peaks, peaks_of
from simtool.hardware.fitted_work import FAMILY_TERMS
from simtool.hardware.roofline import regimes
from simtool.models.config import load_architecture
from simtool.models.lowering import lower
from simtool.models.operators import StepBatch
from simtool.plan import Parallel

Array = NDArray[np.float64]
SIZES = (50, 100, 200, 400)
AT = 200  # points for the columns of the details that show one number
MOST_TESTED = 4_000
SEED = 7
MODELS = (("llama-3.1-8b", 1, 1), ("llama-3.1-70b", 4, 1), ("qwen3-30b-a3b", 4, 4), ("deepseek-v3", 8, 8))  # tp, ep
SHAPES: Mapping[str, tuple[str, ...]] = {
    "gemm": ("n", "k"),
    "moe": ("hidden", "inter", "top_k", "num_experts"),  # at every degree of TP and EP
    "attention_prefill": ("heads", "kv_heads", "head_dim", "window"),
    "attention_decode": ("heads", "kv_heads", "head_dim", "window"),
    "mla_prefill": ("heads",),
    "mla_decode": ("heads",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Errors (median, p95) from `points` points. covered: share of tested rows inside the 90% interval."""

    device: str
    library: str
    family: str
    dtype: str
    scope: str
    points: int
    fitted: tuple[float, float]
    roofline: tuple[float, float]
    forest: tuple[float, float]
    covered: float


def score(rows: Measurements, points: int, peaks: Peaks, label: tuple[str, str, str]) -> Score:
    """Fit to `points` random rows, judge on the others."""
    order = np.random.default_rng(SEED).permutation(len(rows.seconds))
    train, test = rows.take(order[:points]), rows.take(order[points : points + MOST_TESTED])
    fit = fit_table(train, peaks, SEED).fit
    rates = fit.peak_flops, fit.bandwidth_bytes_per_s
    predicted, deviation = predicted_log(fit.law, fit.residual, test, *rates)
    law, _ = predicted_log(fit.law, None, test, *rates)
    truth = np.log(test.seconds)
    work = FAMILY_TERMS[rows.family].work(test.dims, test.dtype)
    ends = fit.intervals[np.broadcast_to(regimes(fit.law, work, *rates), truth.shape)] * deviation[:, None]
    inside = (truth - predicted >= ends[:, 0]) & (truth - predicted <= ends[:, 1])
    return Score(
        device=label[0],
        library=label[1],
        family=rows.family,
        dtype=rows.dtype,
        scope=label[2],
        points=points,
        fitted=relative(truth - predicted),
        roofline=relative(truth - law),
        forest=relative(truth - forest(train, test)),
        covered=float(inside.mean()),
    )


def forest(train: Measurements, test: Measurements) -> Array:
    """Log seconds of a random forest on log2 of the dims (scikit-learn's defaults): the usual first idea."""
    from sklearn.ensemble import RandomForestRegressor

    names = sorted(train.dims)
    left, right = (np.stack([np.log2(rows.dims[n] + 1.0) for n in names], axis=1) for rows in (train, test))
    model = RandomForestRegressor(n_estimators=100, random_state=SEED, n_jobs=1)
    return np.asarray(model.fit(left, np.log(train.seconds)).predict(right))


def model_rows(rows: Measurements) -> Measurements:
    """The rows of the shapes nearest to those of MODELS."""
    names = SHAPES[rows.family]
    have = np.stack([rows.dims[name] for name in names], axis=1)
    shapes = np.unique(have, axis=0)
    kept = np.zeros(len(have), dtype=np.bool_)
    for wanted in sorted(set(_wanted(rows.family, names))):
        distance = np.abs(np.log2(shapes + 1.0) - np.log2(np.array(wanted) + 1.0)).sum(axis=1)
        kept |= np.all(have == shapes[distance.argmin()], axis=1)
    return rows.take(kept)


def _wanted(family: str, names: Sequence[str]) -> Iterator[tuple[float, ...]]:
    one = np.ones(1)
    batch = StepBatch(
        prefill_tokens=512 * one,
        prefill_requests=one,
        prefill_context=0 * one,
        decode_requests=8 * one,
        decode_kv_tokens=8192 * one,
        total_tokens=520 * one,
        sampled=9 * one,
    )
    for model, tp, ep in MODELS:
        for operator in lower(load_architecture(model), Parallel(tp=tp, ep=ep), 0, batch):
            if operator.family == family:
                yield tuple(float(operator.dims[name][0]) for name in names)


def scores(data: Path) -> Iterator[Score]:
    """All scores, in a fixed order."""
    for device in SYSTEMS.values():
        for library in LIBRARIES:
            for found in import_measurements("aiconfigurator", data / "aiconfigurator", device=device, library=library):
                peaks = peaks_of(device, ())
                for rows in found.tables:
                    if rows.family not in SHAPES or rows.dtype not in ("bf16", "fp8"):
                        continue
                    for scope, part in (("universal", rows), ("model", model_rows(rows))):
                        for points in SIZES:
                            if points <= 0.7 * len(part.seconds):
                                yield score(part, points, peaks, (device, library, scope))


def line(found: Score) -> str:
    """One row of the table."""
    name = f"{found.device:10}{found.library:8}{found.family:18}{found.dtype:6}{found.scope:10}{found.points:5}"
    pairs = (found.fitted, found.roofline, found.forest)
    errors = "".join(f"{100 * median:7.1f}%{100 * p95:6.0f}%" for median, p95 in pairs)
    return f"{name}{errors}{100 * found.covered:8.0f}%"


def summary(found: Sequence[Score]) -> Iterator[str]:
    """Median over devices and libraries, a Markdown row each family and scope."""
    yield "| family | scope | points | fit: median (p95) | roofline alone | random forest | 90% interval covers |"
    yield "|---|---|---|---|---|---|---|"
    for family, scope, points in sorted({(s.family, s.scope, s.points) for s in found}):
        part = [s for s in found if (s.family, s.scope, s.points) == (family, scope, points)]
        columns = [np.median([getattr(s, name) for s in part], axis=0) for name in ("fitted", "roofline", "forest")]
        errors = " | ".join(f"{100 * median:.1f}% ({100 * p95:.0f}%)" for median, p95 in columns)
        covered = np.median([s.covered for s in part])
        yield f"| {family} | {scope} | {points} | {errors} | {100 * covered:.0f}% |"


def details(found: Sequence[Score]) -> Iterator[str]:
    """A Markdown row each device, library, family and dtype."""
    sizes = "/".join(str(size) for size in SIZES)
    yield f"| table | kernel | universal: {sizes} | model: {sizes} | p95 | roofline alone | forest | covers |"
    yield "|---|---|---|---|---|---|---|---|"
    for key in sorted({(s.device, s.library, s.family, s.dtype) for s in found}):
        part = [s for s in found if (s.device, s.library, s.family, s.dtype) == key]
        rows = [_medians([s for s in part if s.scope == scope]) for scope in ("universal", "model")]
        at = [s for s in part if s.points == AT]
        pairs = (
            "/".join(f"{100 * score[index]:.0f}" for score in (getattr(s, name) for s in at)) + "%"
            for name, index in (("fitted", 1), ("roofline", 0), ("forest", 0))
        )
        covers = "/".join(f"{100 * s.covered:.0f}" for s in at) + "%"
        device, library, family, dtype = key
        yield f"| {device}, {library} | {family}, {dtype} | {' | '.join(rows)} | {' | '.join(pairs)} | {covers} |"


def _medians(part: Sequence[Score]) -> str:
    """Median error by number of points; a dash where the table is too small for a number."""
    by_points = {s.points: f"{100 * s.fitted[0]:.1f}" for s in part}
    return "/".join(by_points.get(size, "–") for size in SIZES) + "%"


def main() -> None:
    """Print a line a fit and both tables; with --write put the tables into a file."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, help="file whose numbers are replaced")
    options, found = parser.parse_args(), []
    print(f"{'device':10}{'library':8}{'family':18}{'dtype':6}{'scope':10}{'pts':>5}{'fit':>9}{'p95':>6}", end="")
    print(f"{'roofline':>9}{'p95':>6}{'forest':>8}{'p95':>6}{'covered':>9}")
    for one in scores(options.data):
        found.append(one)
        print(line(one), flush=True)
    tables = {"summary": "\n".join(summary(found)), "details": "\n".join(details(found))}
    print("\n\n".join(tables.values()))
    if options.write is not None:
        text = options.write.read_text(encoding="utf-8")
        for name, table in tables.items():
            text = rewritten(text, table, f"<!-- few points, {name}: begin -->", f"<!-- few points, {name}: end -->")
        options.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
