"""Curve: seconds of one collective over its size, fitted to measurements (`data/collectives_*.json`)."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.hardware.links import Link

Array = NDArray[np.float64]
FITTED_DEVICES = ("h200", "a100-80g", "l40s", "v100-pcie-16g")


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """t(b) = latency_s + excess(b): log excess is interpolated in log b between knots, linear in b beyond the last.

    knot_bytes, excess_s: shape [k], both increasing, so that t is monotone in b. spread: 90% quantile of the held-out
    |log error|. held_out: (median, p95) relative error of every second size left out of the fit. noise: median relative
    difference between measurements of one size, 0 where each was measured once. file: the profile that the user gave,
    "" for a shipped curve.
    """

    kind: str
    library: str
    ranks: int
    latency_s: float
    knot_bytes: Array
    excess_s: Array
    spread: float
    points: int
    held_out: tuple[float, float]
    source: str
    noise: float = 0.0
    file: str = ""

    def excess(self, size: Array) -> Array:
        """Seconds above the latency for `size` bytes."""
        inside = np.exp(np.interp(np.log(np.maximum(size, 1.0)), np.log(self.knot_bytes), np.log(self.excess_s)))
        return np.asarray(inside * np.maximum(size / self.knot_bytes[-1], 1.0))

    def seconds(self, size: Array, latency_ratio: float = 1.0, bandwidth_ratio: float = 1.0) -> Array:
        """Seconds for `size` bytes on a link with that many times this curve's latency and bandwidth."""
        return self.latency_s * latency_ratio + self.excess(size) / bandwidth_ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveSet:
    """All curves of one measured device; link: what joins its devices in a node; command: what fitted them."""

    device: str
    link: Link
    command: str
    curves: tuple[Curve, ...]

    def find(self, kind: str, library: str) -> dict[int, Curve]:
        """Ranks -> curve of `kind` in `library`; empty if it was not measured."""
        return {curve.ranks: curve for curve in self.curves if (curve.kind, curve.library) == (kind, library)}


def load_curves(device: str) -> CurveSet:
    """The curves fitted on `device`, one of FITTED_DEVICES."""
    filename = f"collectives_{device}.json"
    table = json.loads(files("simtool.hardware").joinpath("data", filename).read_text(encoding="utf-8"))
    return CurveSet(
        device=table["device"],
        link=Link(**table["link"]),
        command=table["command"],
        curves=tuple(curve_of(entry, filename) for entry in table["curves"]),
    )


def nearest_curves(device: str, link: Link) -> CurveSet:
    """The device's own curves if it was measured on such a link, else those on the same kind with the nearest rate."""
    if device in FITTED_DEVICES:
        own = load_curves(device)
        if alike(own.link, link):
            return own
    near = [curves for curves in map(load_curves, FITTED_DEVICES) if alike(curves.link, link)]
    return min(near, key=lambda curves: _distance(curves.link, link))


def alike(measured: Link, wanted: Link) -> bool:
    """Whether curves on one link say something of the other."""
    return (measured.kind == "pcie") == (wanted.kind == "pcie")


def _distance(measured: Link, wanted: Link) -> tuple[bool, float]:
    return measured.name != wanted.name, abs(math.log(measured.bytes_per_s / wanted.bytes_per_s))


def curve_of(entry: dict[str, Any], filename: str) -> Curve:
    """The curve in the JSON object `entry`; `filename` is for messages. InputError where it does not increase."""
    knots = np.asarray(entry["knot_bytes"], dtype=np.float64)
    excess = np.asarray(entry["excess_us"], dtype=np.float64) * 1e-6
    ordered = knots.shape == excess.shape and knots.size > 1 and (np.diff(knots) > 0).all()
    if not (ordered and (np.diff(excess) >= 0).all() and excess[0] > 0 and np.isfinite(excess).all()):
        raise InputError(filename, "holds a curve that does not increase", "fit it again with fit_collectives")
    return Curve(
        kind=entry["kind"],
        library=entry["library"],
        ranks=int(entry["ranks"]),
        latency_s=float(entry["latency_us"]) * 1e-6,
        knot_bytes=knots,
        excess_s=excess,
        spread=float(entry["spread"]),
        points=int(entry["points"]),
        held_out=(float(entry["held_out_median"]), float(entry["held_out_p95"])),
        source=str(entry["source"]),
        noise=float(entry.get("noise") or 0.0),
    )


def curve_entry(curve: Curve) -> dict[str, Any]:
    """`curve` as the JSON object that load_curves reads."""
    noise = {"noise": round(curve.noise, 4)} if curve.noise else {}
    return {
        "kind": curve.kind,
        "library": curve.library,
        "ranks": curve.ranks,
        "latency_us": float(f"{curve.latency_s * 1e6:.5g}"),
        "knot_bytes": [round(knot) for knot in curve.knot_bytes.tolist()],
        "excess_us": [float(f"{value * 1e6:.5g}") for value in curve.excess_s],
        "spread": round(curve.spread, 4),
        "points": curve.points,
        "held_out_median": round(curve.held_out[0], 4),
        "held_out_p95": round(curve.held_out[1], 4),
        **noise,
        "source": curve.source,
    }
