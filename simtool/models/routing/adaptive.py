"""Adaptive modules: for each token and layer one of several modules of unlike size, or none, under a compute budget."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.models.routing.prediction import NOBODY

_HALVINGS = 100  # of the price of cost: below what float64 tells apart


def budgeted_choices(value: NDArray[np.float64], cost: NDArray[np.float64], budget: float) -> NDArray[np.int16]:
    """The module of each token and layer, int16[tokens, layers], -1 for none; their mean cost is at most `budget`.

    value: float64[tokens, layers, modules] >= 0, what each module is worth there (none is worth 0). cost:
    float64[modules] > 0, for a token, in any unit; budget: in the same unit, for a token and layer. One price of cost
    for all (Everett 1963): each takes what is worth most after paying for it, so that no other choice of the same or
    less cost is worth more. Where the next cheaper price would exceed the budget, what is left of it is not spent.
    Raises InputError.
    """
    if value.ndim != 3 or cost.shape != value.shape[2:] or not value.size:
        raise InputError(f"values of shape {value.shape}, costs of {cost.shape}", "are not tokens x layers x modules")
    if not (np.isfinite(value).all() and (value >= 0).all() and np.isfinite(cost).all() and (cost > 0).all()):
        raise InputError("values and costs", "must be finite, costs above 0 and values not below")
    if not budget >= 0:
        raise InputError(f"budget {budget:g}", "must be 0 or more")
    low, high = 0.0, float((value / cost).max()) + 1.0  # nothing is worth `high`
    if choice_cost(_at_price(value, cost, low), cost) <= budget:
        return _at_price(value, cost, low)
    for _ in range(_HALVINGS):
        price = (low + high) / 2
        if choice_cost(_at_price(value, cost, price), cost) <= budget:
            high = price
        else:
            low = price
    return _at_price(value, cost, high)


def choice_cost(choice: NDArray[np.int16], cost: NDArray[np.float64]) -> float:
    """Mean cost of a token and layer."""
    return float(np.append(cost, 0.0)[choice].mean())  # -1 is the last


def _at_price(value: NDArray[np.float64], cost: NDArray[np.float64], price: float) -> NDArray[np.int16]:
    left = value - price * cost
    best = left.argmax(axis=2)
    worth = np.take_along_axis(left, best[:, :, None], axis=2)[:, :, 0]
    return np.where(worth > 0, best, NOBODY).astype(np.int16)
