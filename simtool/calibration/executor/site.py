"""LayerSite: where a layer is built: its number, its rank, the source of its weights."""

from __future__ import annotations

from dataclasses import dataclass

from simtool.calibration.executor.options import ExecutorOptions
from simtool.calibration.executor.ranks import Ranks
from simtool.calibration.executor.weights import Weights
from simtool.models.architecture import WeightDtypes


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSite:
    """index: of the layer in the whole model. hidden: its width. dtypes: what its weights are stored as."""

    index: int
    hidden: int
    weights: Weights
    ranks: Ranks
    options: ExecutorOptions
    dtypes: WeightDtypes

    @property
    def blocks(self) -> tuple[int, int]:
        """Blocks of the cache and tokens of each; one block more than is scheduled takes what padding writes."""
        return self.options.num_blocks + 1, self.options.block_size
