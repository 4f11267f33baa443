"""Tables of the calibration page, as HTML."""

from __future__ import annotations

import numpy as np

from simtool.hardware.collective_curves import Curve
from simtool.hardware.fitted_process import GaussianProcess
from simtool.hardware.kernel_profile import REGIMES, FamilyFit, FitErrors, KernelProfile
from simtool.report.calibration_points import FitPoints
from simtool.report.calibration_sentence import held_out, measured_points, noise_floor, worst_fit
from simtool.report.calibration_wording import family_words, fit_words, flags, mover_words, percent, rate
from simtool.report.html_tables import pairs, table
from simtool.report.wording import duration, number

_SHORT = {
    "cpu": "CPU",
    "gpu": "GPU",
    "gpus": "GPUs",
    "cuda": "CUDA",
    "sm": "SM",
    "mhz": "clock, MHz",
    "w": "W",
    "bytes": "memory",
}
_HOST_WORDS = {
    "eager_launch": "launch of one kernel",
    "graph_launch": "one kernel of a replayed CUDA graph",
    "graph_replay": "start of a CUDA graph's replay",
    "synchronize": "synchronize",
}


def errors_table(profile: KernelProfile) -> str:
    """Errors of each fit beside the noise floor, what is out of bounds in the last column."""
    heads = ("operator", "dtype", "points", "in sample", "held out", "law alone", "noise floor", "90% covers", "")
    rows = [_error_row(fit) for fit in profile.fits.values()]
    return scrolled(table(heads, rows, ["flagged" if row[-1] != "✓" else "sound" for row in rows], (0, 1, 8)))


def _error_row(fit: FamilyFit) -> tuple[str, ...]:
    e = fit.errors
    return (
        family_words(fit.family),
        fit.dtype,
        f"{e.in_sample_points:,}",
        _pair(e.in_sample_median, e.in_sample_p95),
        _pair(e.held_out_median, e.held_out_p95),
        _pair(e.law_only_median, e.law_only_p95),
        _noise(e),
        f"{100 * e.coverage_90:.0f}%",
        ", ".join(flags(e)) or "✓",
    )


def _pair(median: float, p95: float) -> str:
    return f"{number(100 * median, 2)} / {percent(p95)}"


def _noise(errors: FitErrors) -> str:
    return _pair(errors.noise_median, errors.noise_p95) if errors.noise_points else "not known"


def laws_table(profile: KernelProfile, points: tuple[FitPoints, ...]) -> str:
    """Parameters of each law, its intervals, and the highest rates that its points reached."""
    heads: tuple[str, ...] = (
        "operator", "dtype", "launch", "compute", "memory", "exponent", "an item",
        *(f"90%: {regime}" for regime in REGIMES), "fastest",
    )  # fmt: skip
    found = {(p.fit.family, p.fit.dtype): p for p in points}
    rows = [_law_row(fit, found.get(key)) for key, fit in profile.fits.items()]
    if not points:
        heads, rows = heads[:-1], [row[:-1] for row in rows]
    return scrolled(table(heads, rows, [""] * len(rows), (0, 1)))


def _law_row(fit: FamilyFit, points: FitPoints | None) -> tuple[str, ...]:
    law = fit.law
    deviation = float(np.median(points.deviation)) if points and isinstance(fit.residual, GaussianProcess) else 1.0
    ends = np.expm1(fit.intervals * deviation)
    memory_only = fit.family in ("elementwise", "embedding", "sampling")
    return (
        family_words(fit.family),
        fit.dtype,
        duration(law.launch_s),
        "–" if memory_only else percent(law.compute_efficiency),
        percent(law.memory_efficiency),
        number(law.exponent, 2),
        _brief(law.item_s),
        *(f"{100 * low:+.0f} … {100 * high:+.0f}%" for low, high in ends),
        "–" if points is None else _fastest(points),
    )


def _brief(seconds: float) -> str:
    """Nanoseconds below a microsecond; a dash for what is too short to matter."""
    if seconds < 1e-10:
        return "–"
    return f"{number(seconds * 1e9, 2)} ns" if seconds < 1e-6 else duration(seconds)


def _fastest(points: FitPoints) -> str:
    if points.flops.any():
        return rate(float((points.flops / points.measured_s).max()), "FLOP/s")
    return rate(float((points.hbm_bytes / points.measured_s).max()), "B/s")


def curves_table(curves: tuple[Curve, ...]) -> str:
    """Latency, bandwidth at the largest size and held-out error of each curve."""
    heads = ("what", "library", "ranks", "latency", "at the largest size", "points", "held out", "noise")
    rows = [
        (
            mover_words(curve.kind),
            curve.library,
            str(curve.ranks),
            duration(curve.latency_s),
            rate(float(curve.knot_bytes[-1] / curve.seconds(curve.knot_bytes[-1:])[0]), "B/s"),
            f"{curve.points:,}",
            _pair(*curve.held_out),
            percent(curve.noise) if curve.noise else "–",
        )
        for curve in curves
    ]
    return scrolled(table(heads, rows, [""] * len(rows), (0, 1)))


def contention_table(profile: KernelProfile) -> str:
    """Each pair's times alone and together."""
    heads = ("pair", "first alone", "first beside", "keeps", "second alone", "second beside", "keeps")
    rows = [
        (
            f"{mover_words(pair.first)} + {mover_words(pair.second)}",
            duration(pair.first_alone_s),
            duration(pair.first_together_s),
            percent(pair.first_keeps),
            duration(pair.second_alone_s),
            duration(pair.second_together_s),
            percent(pair.second_keeps),
        )
        for pair in profile.contention
    ]
    return scrolled(table(heads, rows, [""] * len(rows)))


def host_table(profile: KernelProfile) -> str:
    """What the host spends."""
    heads = ("what", "time", "spread of repeats", "1,000 of them")
    rows = [
        (
            _HOST_WORDS.get(time.name, time.name.replace("_", " ")),
            duration(time.seconds),
            percent(time.spread),
            duration(1e3 * time.seconds),
        )
        for time in profile.host
    ]
    return table(heads, rows, [""] * len(rows))


def origins_table(profile: KernelProfile) -> str:
    """Where each fit's rows came from."""
    heads = ("fit", "table", "kernels", "rows refused", "note")
    rows = [
        (fit_words(fit), fit.table, ", ".join(fit.kernels), f"{fit.refused_rows:,}", fit.note)
        for fit in profile.fits.values()
    ]
    return scrolled(table(heads, rows, [""] * len(rows), (0, 1, 2, 4)))


def machine_table(profile: KernelProfile) -> str:
    """The machine and the run, and where the numbers come from."""
    facts = [(_fact_name(name), _fact(name, value)) for name, value in profile.machine.items()]
    refused = sum(fit.refused_rows for fit in profile.fits.values())
    origin = [
        ("Device", profile.device),
        ("Library", f"{profile.library} {profile.version}".strip()),
        *facts,
        ("Source", profile.source),
        ("Licence", profile.licence),
        ("Command", profile.command),
        ("Rows refused", f"{refused:,}: what no device can do, or what is not a number"),
    ]
    return pairs((name, text) for name, text in origin if text)


def _fact_name(name: str) -> str:
    words = [_SHORT.get(word, word) for word in name.removesuffix("_s").split("_")]
    text = " ".join(words)
    return text[:1].upper() + text[1:]


def _fact(name: str, value: str | float) -> str:
    if isinstance(value, str):
        return value
    if name.endswith("_bytes"):
        return f"{number(value / 1e9)} GB"
    if name.endswith("_s"):
        return duration(value)
    return f"{value:,.0f}" if value == round(value) else number(value)


def overview_table(profiles: tuple[KernelProfile, ...]) -> str:
    """One line a profile."""
    heads = ("device", "library", "points", "fits", "held out", "noise floor", "worst fit")
    rows = []
    for profile in profiles:
        worst, noise = worst_fit(profile), noise_floor(profile)
        rows.append((
            profile.device,
            f"{profile.library} {profile.version}".strip(),
            f"{measured_points(profile):,}",
            str(len(profile.fits)),
            percent(held_out(profile)),
            "not known" if np.isnan(noise) else percent(noise),
            f"{fit_words(worst)}, {percent(worst.errors.held_out_median)}" if worst else "–",
        ))  # fmt: skip
    return scrolled(table(heads, rows, [""] * len(rows), (0, 1)))


def scrolled(html: str) -> str:
    """A wide table scrolls within its panel on a narrow screen."""
    return f'<div class="scroll">{html}</div>'
