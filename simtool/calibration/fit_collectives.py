"""Fit collective curves to measured tables: `python -m simtool.calibration.fit_collectives --data DIR [--out DIR]`.

A curve is latency + an excess that grows with the size (hardware/collective_curves.py). Measurements of nearly equal
sizes are averaged in log time, a median of three neighbours drops lone outliers (it changes nothing where times already
increase), an isotonic regression makes times monotone in the size, and the latency is what the smallest message takes.
Held out: every second size is left out, the curve is fitted to the rest and asked for them.
`--report` prints the error table, in-sample and held-out, and checks against tables no curve was fitted to.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.collective_samples import Samples, read_samples
from simtool.errors import InputError
from simtool.hardware.collective_curves import FITTED_DEVICES, Curve, CurveSet, curve_entry
from simtool.hardware.device import load_device
from simtool.hardware.links import scale_up_link

Array = NDArray[np.float64]
COMMAND = "python -m simtool.calibration.fit_collectives --data DIR"
LATENCY_SHARE = 0.98  # of the smallest message's time is latency; the rest keeps the excess positive (its log is taken)
MIN_SPREAD = 0.03  # two runs of the same benchmark differ by about this much


def fit_curve(samples: Samples) -> Curve:
    """The curve through `samples`, with its held-out error."""
    size, seconds = _by_size(samples.size_bytes, samples.seconds)
    errors = np.concatenate([_left_out_errors(size, seconds, parity) for parity in (0, 1)])
    magnitudes = np.abs(np.expm1(errors))
    return _through(
        samples,
        size,
        seconds,
        spread=max(MIN_SPREAD, float(np.quantile(np.abs(errors), 0.9))),
        held_out=(float(np.median(magnitudes)), float(np.quantile(magnitudes, 0.95))),
        noise=_noise(samples),
    )


def _through(
    samples: Samples,
    size: Array,
    seconds: Array,
    *,
    spread: float = 0.0,
    held_out: tuple[float, float] = (0.0, 0.0),
    noise: float = 0.0,
) -> Curve:
    from scipy.optimize import isotonic_regression

    logs = np.log(seconds)
    logs[1:-1] = np.median([logs[:-2], logs[1:-1], logs[2:]], axis=0)
    monotone = np.exp(isotonic_regression(logs).x)
    latency_s = LATENCY_SHARE * monotone[0]
    return Curve(
        kind=samples.kind,
        library=samples.library,
        ranks=samples.ranks,
        latency_s=float(latency_s),
        knot_bytes=size,
        excess_s=monotone - latency_s,
        spread=spread,
        points=samples.size_bytes.size,
        held_out=held_out,
        source=samples.source,
        noise=noise,
    )


def _noise(samples: Samples) -> float:
    """Median |t / other t - 1| of neighbouring measurements of the same size; 0 where there are none."""
    order = np.argsort(samples.size_bytes, kind="stable")
    same = np.diff(samples.size_bytes[order]) == 0
    gaps = np.abs(np.expm1(np.diff(np.log(samples.seconds[order]))))[same]
    return float(np.median(gaps)) if len(gaps) else 0.0


def _by_size(size: Array, seconds: Array) -> tuple[Array, Array]:
    """Sizes, increasing, binned by a quarter of an octave, and the geometric mean of their times."""
    _, index = np.unique(np.round(np.log2(size) * 4), return_inverse=True)
    count = np.bincount(index)
    means = [np.exp(np.bincount(index, weights=np.log(values)) / count) for values in (size, seconds)]
    return means[0], means[1]


def _left_out_errors(size: Array, seconds: Array, parity: int) -> Array:
    """log(predicted / measured) at every second inner size, from a curve fitted to the others."""
    left_out = np.zeros(size.size, dtype=bool)
    left_out[1 + parity : -1 : 2] = True
    empty = Samples(kind="", library="", ranks=0, size_bytes=size, seconds=seconds, source="")
    curve = _through(empty, size[~left_out], seconds[~left_out])
    return np.asarray(np.log(curve.seconds(size[left_out]) / seconds[left_out]))


def fit_device(data: Path, device: str) -> CurveSet:
    """All curves of `device` from the tables under `data` (the folder of aiconfigurator, apex_plus and vidur)."""
    curves = tuple(fit_curve(samples) for samples in read_samples(data, device))
    return CurveSet(device=device, link=scale_up_link(load_device(device)), command=COMMAND, curves=curves)


def write_curves(curves: CurveSet, out: Path) -> Path:
    """Write `curves` to out/collectives_<device>.json and return its path."""
    table = {"device": curves.device, "command": curves.command, "link": asdict(curves.link)}
    path = out / f"collectives_{curves.device}.json"
    lines = ",\n".join("  " + json.dumps(curve_entry(curve)) for curve in curves.curves)
    head = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in table.items())
    path.write_text(f'{{\n{head},\n "curves": [\n{lines}\n ]\n}}\n', encoding="utf-8")
    return path


def main(argv: list[str] | None = None) -> int:
    """Command line entry: fit and write, or report."""
    from simtool.calibration.report_collectives import report_lines

    parser = argparse.ArgumentParser(prog="fit_collectives", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with aiconfigurator/, apex_plus/ and vidur/")
    parser.add_argument("--out", type=Path, default=Path(str(files("simtool.hardware").joinpath("data"))))
    parser.add_argument("--report", action="store_true", help="print errors instead of writing files")
    options = parser.parse_args(argv)
    try:
        for line in report_lines(options.data) if options.report else _fit_all(options.data, options.out):
            print(line)
    except InputError as error:
        parser.exit(2, f"ERROR {error}\n")
    return 0


def _fit_all(data: Path, out: Path) -> Iterator[str]:
    for device in FITTED_DEVICES:
        curves = fit_device(data, device)
        yield f"{write_curves(curves, out)}: {len(curves.curves)} curves"


if __name__ == "__main__":
    raise SystemExit(main())
