"""Fitted routing: sources whose classes were fitted to counts of real models, and how well they agree with them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.files import read_text
from simtool.models.routing.shape import MoeShape
from simtool.models.routing.source import RoutingSource

SCHEMA = 1
_MOST_BYTES = 2**24
_SHIPPED = "routing.json"
_HINT = "python -m simtool.calibration.fit_routing writes it"


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedRouting:
    """One model on text of one domain ("all": of all that were counted). shape: the layers that were counted.

    share: of the classes. rates: [layers, classes, experts], as RoutingSource's; both by calibration/fit_classes.py.
    quality: what calibration/fit_routing.py says of the fit. provenance: data and command.
    """

    model: str
    domain: str
    shape: MoeShape
    share: tuple[float, ...]
    rates: tuple[tuple[tuple[float, ...], ...], ...]
    quality: dict[str, float]
    provenance: str

    @property
    def name(self) -> str:
        """As `fitted_source` takes it."""
        return self.model if self.domain == "all" else f"{self.model}/{self.domain}"


def shipped_routing() -> list[FittedRouting]:
    """The fits that come with simtool."""
    with files("simtool.models").joinpath("data", _SHIPPED).open(encoding="utf-8") as file:
        return _fits(json.load(file), Path(_SHIPPED))


def load_routing(path: Path) -> list[FittedRouting]:
    """Fits of one's own. Raises InputError for a file that does not hold any."""
    try:
        found = json.loads(read_text(path, kind="file of fitted routing", max_bytes=_MOST_BYTES))
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"is not JSON: {error}", _HINT) from None
    return _fits(found, path)


def fitted_source(fit: FittedRouting) -> RoutingSource:
    """The source over the counted layers. The counts say nothing of sequences, so that it has no locality."""
    return RoutingSource(
        rates=np.array(fit.rates),
        class_share=np.array(fit.share) / sum(fit.share),
        top_k=fit.shape.top_k,
        source=fit.name,
    )


def routing_json(fits: list[FittedRouting]) -> str:
    """The file of some fits; numbers to 5 digits."""
    rows = [
        {
            "model": fit.model,
            "domain": fit.domain,
            "layers": fit.shape.layers,
            "num_experts": fit.shape.num_experts,
            "top_k": fit.shape.top_k,
            "quality": {key: _rounded(value) for key, value in fit.quality.items()},
            "provenance": fit.provenance,
            "share": [_rounded(value) for value in fit.share],
            "rates": [[[_rounded(value) for value in row] for row in layer] for layer in fit.rates],
        }
        for fit in fits
    ]
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    return f'{{"simtool_fitted_routing":{SCHEMA},"fits":[\n{lines}\n]}}\n'


def nested(rates: NDArray[np.float64]) -> tuple[tuple[tuple[float, ...], ...], ...]:
    """[layers, classes, experts] as FittedRouting keeps it."""
    return tuple(tuple(tuple(float(rate) for rate in row) for row in layer) for layer in rates)


def _fits(found: Any, path: Path) -> list[FittedRouting]:
    if not isinstance(found, dict) or found.get("simtool_fitted_routing") != SCHEMA:
        raise InputError(path, "holds no fitted routing of this version", _HINT)
    try:
        return [_fit(row) for row in found["fits"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(path, f"a fit is not complete: {error}", _HINT) from None


def _fit(row: dict[str, Any]) -> FittedRouting:
    rates = np.array(row["rates"], np.float64)
    if rates.ndim != 3 or rates.shape != (len(row["layers"]), len(row["share"]), row["num_experts"]):
        raise ValueError("rates are not [layers, classes, experts]")
    if not (np.isfinite(rates).all() and (rates > 0).all() and min(row["share"]) >= 0 and sum(row["share"]) > 0):
        raise ValueError("rates must be above 0 and shares at least 0")
    return FittedRouting(
        model=str(row["model"]),
        domain=str(row["domain"]),
        shape=MoeShape(
            layers=tuple(int(layer) for layer in row["layers"]),
            num_experts=int(row["num_experts"]),
            top_k=int(row["top_k"]),
        ),
        share=tuple(float(value) for value in row["share"]),
        rates=nested(rates),
        quality={str(key): float(value) for key, value in row["quality"].items()},
        provenance=str(row["provenance"]),
    )


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
