"""Remembered prices: the same kernel occurs in many plans (other depths, replicas, stages) and is priced once."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from simtool.hardware.cost import Cost, CostModel
from simtool.models.operators import Operator


@dataclass(frozen=True, slots=True, kw_only=True)
class RememberedCosts:
    """A cost model that keeps what it priced. An operator's price depends on its work, not on its name or count."""

    model: CostModel
    known: dict[tuple[object, ...], Cost] = field(default_factory=dict, compare=False)

    def price(self, operator: Operator) -> Cost:
        """As the model's own `price`."""
        key = (
            *(operator.family, operator.dtype, operator.launches, operator.collective),
            *(_content(array) for array in (operator.flops, operator.hbm_bytes, operator.link_bytes)),
            *((name, _content(array)) for name, array in sorted(operator.dims.items())),
        )
        if key not in self.known:
            self.known[key] = self.model.price(operator)
        return self.known[key]


def _content(array: NDArray[np.float64]) -> tuple[tuple[int, ...], bytes]:
    """Shape and bytes, a stand-in for the array that can be looked up."""
    column = np.asarray(array)
    return column.shape, column.tobytes()
