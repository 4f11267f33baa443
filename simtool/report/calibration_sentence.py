"""How good a profile is: in a sentence, in a paragraph, in key numbers."""

from __future__ import annotations

import math
from html import escape

import numpy as np

from simtool.hardware.kernel_profile import FamilyFit, KernelProfile
from simtool.report.calibration_points import FitPoints
from simtool.report.calibration_wording import NOISE_RATIO, fit_words, percent
from simtool.report.card import Card
from simtool.report.wording import number


def held_out(profile: KernelProfile) -> float:
    """Median over the fits of their median held-out errors; NaN without a fit."""
    return _median([fit.errors.held_out_median for fit in profile.fits.values()])


def noise_floor(profile: KernelProfile) -> float:
    """Median over the fits of the median difference of repeats; NaN where nothing was measured twice."""
    return _median([fit.errors.noise_median for fit in profile.fits.values() if fit.errors.noise_points])


def coverage(profile: KernelProfile) -> float:
    """Share of all held-out points inside their 90% interval."""
    counts = [fit.errors.held_out_points for fit in profile.fits.values()]
    if not sum(counts):
        return math.nan
    return float(np.average([fit.errors.coverage_90 for fit in profile.fits.values()], weights=counts))


def measured_points(profile: KernelProfile) -> int:
    """Points that the fits were made from."""
    return sum(fit.errors.in_sample_points for fit in profile.fits.values())


def worst_fit(profile: KernelProfile) -> FamilyFit | None:
    """The fit with the largest median held-out error."""
    return max(profile.fits.values(), key=lambda fit: fit.errors.held_out_median, default=None)


def profile_words(profile: KernelProfile) -> str:
    """ "H200 with torch 2.13"."""
    return f"{profile.device.upper()} with {profile.library} {profile.version}".strip()


def headline(profile: KernelProfile) -> str:
    """The answer as one HTML sentence."""
    what = f"<em>{escape(profile_words(profile))}</em>"
    error, noise = held_out(profile), noise_floor(profile)
    if math.isnan(error):
        return f"{what}: {len(profile.curves)} collective curves and {len(profile.copies)} copy curves; no kernel fit."
    said = f"{what}: kernel times are predicted within {percent(error)} (median, held out)"
    return said + (f"; two measurements of one point differ by {percent(noise)}." if not math.isnan(noise) else ".")


def lead(profile: KernelProfile) -> str:
    """What the sentence rests on, as HTML."""
    fits, worst = list(profile.fits.values()), worst_fit(profile)
    if worst is None:
        return escape(profile.source)
    date = profile.machine.get("date", "")
    families = len({fit.family for fit in fits})
    said = (
        f"<strong>{measured_points(profile):,} points</strong>{f', measured {escape(str(date))}' if date else ''}, in "
        f"{len(fits)} {'fit' if len(fits) == 1 else 'fits'} of {families} operator "
        f"{'family' if families == 1 else 'families'}; the error is the median over the fits."
    )
    if len(fits) > 1:
        said += f" The worst is <strong>{escape(fit_words(worst))}</strong> at {percent(worst.errors.held_out_median)}."
    return f"{said} {_verdict(profile)}"


def _verdict(profile: KernelProfile) -> str:
    noise = noise_floor(profile)
    if math.isnan(noise):
        return "Nothing was measured twice, so the noise floor is not known."
    ratio = held_out(profile) / noise if noise else math.inf
    if ratio <= NOISE_RATIO:
        return "The error is within twice the noise floor: a second measurement would differ about as much."
    return (
        f'<span class="problem">The error is {number(ratio, 2)} times the noise floor: more points would help.</span>'
    )


def cards(profile: KernelProfile, points: tuple[FitPoints, ...]) -> list[Card]:
    """The key numbers; NaN where the profile lacks one."""
    fits = list(profile.fits.values())
    p95 = _median([fit.errors.held_out_p95 for fit in fits])
    law = _median([fit.errors.law_only_median for fit in fits])
    noise_p95 = _median([fit.errors.noise_p95 for fit in fits if fit.errors.noise_points])
    repeats = sum(fit.errors.noise_points for fit in fits)
    launches = {time.name: 1e6 * time.seconds for time in profile.host}
    graph = launches.get("graph_launch", math.nan)
    return [
        Card(name="Held-out error", value=100 * held_out(profile), unit="% median", more=f"p95 {percent(p95)}"),
        Card(name="Noise floor", value=100 * noise_floor(profile), unit="% median",
             more=f"p95 {percent(noise_p95)}, {repeats:,} repeats"),
        Card(name="Law alone", value=100 * law, unit="% median", more="a smooth roofline without residual"),
        Card(name="90% interval covers", value=100 * coverage(profile), unit="%",
             more="of held-out points; wanted 85 – 95%"),
        *_reached(points),
        Card(name="Kernel launch", value=launches.get("eager_launch", math.nan), unit="µs",
             more="" if math.isnan(graph) else f"{number(graph)} µs in a CUDA graph"),
    ]  # fmt: skip


def _reached(points: tuple[FitPoints, ...]) -> list[Card]:
    """The highest rates among the points."""
    rates = [(float((p.flops / p.measured_s).max()), p) for p in points if p.fit.family in ("gemm", "moe")]
    found = []
    if rates:
        best, where = max(rates, key=lambda pair: pair[0])
        share = f"{fit_words(where.fit)}, {percent(best / where.fit.peak_flops)} of the ceiling"
        value, unit = (best / 1e12, "TFLOP/s") if best >= 1e12 else (best / 1e9, "GFLOP/s")
        found.append(Card(name="Fastest kernel", value=value, unit=unit, more=share))
    return found


def _median(values: list[float]) -> float:
    return float(np.median(values)) if values else math.nan
