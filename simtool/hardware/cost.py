"""CostModel: Operator → seconds, with an interval and where the number comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from simtool.models.operators import Operator

Array = NDArray[np.float64]
Provenance = Literal["measured", "interpolated", "transferred", "roofline"]
WEAKEST_LAST: tuple[Provenance, ...] = ("measured", "interpolated", "transferred", "roofline")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One operator's price, arrays of shape [b], for a single call.

    seconds: the prediction; lower and upper: its 90% interval. roofline_s: max of the specification's compute, memory
    and link times (the floor). provenance: the weakest kind of evidence used. source: profile name or rule.
    """

    seconds: Array
    lower: Array
    upper: Array
    roofline_s: Array
    provenance: Provenance
    source: str


def merged(parts: Sequence[tuple[NDArray[np.bool_], Cost]]) -> Cost:
    """One Cost from costs that each hold where their mask [b] is set; of those used the weakest evidence tells."""
    used = [(mask, cost) for mask, cost in parts if mask.any()] or list(parts[:1])
    columns = {}
    for name in ("seconds", "lower", "upper", "roofline_s"):
        column = np.zeros(used[0][0].shape)
        for mask, cost in used:
            column[mask] = np.broadcast_to(getattr(cost, name), mask.shape)[mask]
        columns[name] = column
    weakest = max((cost.provenance for _, cost in used), key=WEAKEST_LAST.index)
    return Cost(**columns, provenance=weakest, source="; ".join(dict.fromkeys(cost.source for _, cost in used)))


class CostModel(Protocol):
    """Anything that prices operators: the fitted catalogue model, or a synthetic device in a test."""

    def price(self, operator: Operator) -> Cost:
        """Seconds a call of `operator`, for its whole column of batches."""
        ...
