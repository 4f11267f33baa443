"""Sections of a page on expert offload: for a serving run, a walk, or anything else that has an OffloadUse."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simtool.offload_use import OffloadUse
from simtool.report.offload_figures import (
    SpeedPoint,
    hits_figure,
    layers_figure,
    offload_bins,
    speed_figure,
    stalls_figure,
)
from simtool.report.shell import panel, plot, section
from simtool.report.wording import duration, number

_WAITS = ("for missed experts", "for late prefetches", "for the CPU")  # as STALL_CAUSES


def offload_section(
    use: OffloadUse,
    figures: dict[str, str],
    *,
    layers: Sequence[int] = (),
    heading: str = "Expert offload",
    name: str = "offload",
) -> str:
    """One section: hits and link over time, waiting by cause, hits by layer; figures as for `plot`.

    layers: the model's numbers of the mixture layers (0, 1, … where they are not given). name: of the figures, which
    two sections of a page must not share. Empty where no step ran.
    """
    if not len(use.start_s):
        return ""
    bins, numbers = offload_bins(use), layers or range(len(use.layer_needed))
    drawn = (
        panel(plot(hits_figure(bins), f"{name}-hits", figures), "Hits and link over time")
        + panel(plot(stalls_figure(bins), f"{name}-stalls", figures), "Waiting by cause")
        + panel(plot(layers_figure(use, numbers), f"{name}-layers", figures), "Hits by layer")
    )
    return section(heading, offload_words(use), drawn)


def offload_words(use: OffloadUse) -> str:
    """What a run's offload did, in a sentence or two."""
    rate = "none needed" if np.isnan(use.hit_rate) else f"{100 * use.hit_rate:.1f}% were in GPU memory or on the way"
    causes = [
        f"{duration(float(seconds))} {word}"
        for word, seconds in zip(_WAITS, use.stall_s.sum(axis=0), strict=True)
        if seconds > 0
    ]
    waits = f", {' and '.join(causes)}" if causes else ""
    return (
        f"Of {number(float(use.needed.sum()), 4)} needs of experts {rate}. Steps wait for experts during "
        f"{100 * use.stalled_share:.1f}% of their time{waits}; the link is busy for {100 * use.link_share:.1f}% of it."
    )


def speed_section(points: Sequence[SpeedPoint], figures: dict[str, str], say: str) -> str:
    """One section: memory against speed."""
    return section("Memory against speed", say, panel(plot(speed_figure(points), "speed", figures)))
