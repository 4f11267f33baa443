"""Operator families: what the cost model says each takes in steps of given batches, a column of steps at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.validation.predicting import Priced
from simtool.calibration.validation.replay import Batch
from simtool.models.lowering import head_operators, token_operators, transfer_operators
from simtool.models.lowering_attention import decode_operators, prefill_operators
from simtool.models.lowering_mlp import expert_operators
from simtool.models.lowering_shard import Shard, make_shard
from simtool.models.operators import Operator
from simtool.plan import Pool
from simtool.simulator.compile import stage_hardware
from simtool.simulator.grids import capture_sizes, padded_tokens
from simtool.simulator.step_costs import StageHardware

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]
MOST_STEPS = 4000  # priced one by one; of more steps, so many evenly spread ones are
# chunks of a step share one launch, as the step tables price them (step_costs.py)
_LAUNCH_TOKENS = 2048.0


def sampled_steps(steps: int) -> I8:
    """Which steps are priced operator by operator: all, or MOST_STEPS evenly spread."""
    return np.unique(np.linspace(0, max(steps - 1, 0), min(steps, MOST_STEPS)).round().astype(np.int64))


def family_seconds(priced: Priced, replicas: I8, batches: Sequence[Batch]) -> dict[str, F8]:
    """Operator family → seconds [k] of each step, all pipeline stages one after the other."""
    found: dict[str, F8] = {}
    for replica in np.unique(replicas).tolist():
        mine = np.flatnonzero(replicas == replica)
        own = _of_pool(priced, priced.pools[replica], [batches[step] for step in mine.tolist()])
        for family, seconds in own.items():
            found.setdefault(family, np.zeros(len(batches)))[mine] = seconds
    return found


def _of_pool(priced: Priced, pool: Pool, batches: Sequence[Batch]) -> dict[str, F8]:
    """The same for steps of one pool."""
    columns = _Columns(batches, pool)
    found: dict[str, F8] = {}
    for stage, hardware in enumerate(stage_hardware(pool, priced.hardware)):
        shard = make_shard(
            priced.architecture,
            pool.parallel,
            stage,
            kv_dtype=pool.kv.dtype,
            devices_per_node=hardware.devices_per_node,
        )
        for family, seconds in columns.priced(shard, hardware).items():
            found[family] = found.get(family, np.zeros(len(batches))) + seconds
    return found


class _Columns:
    """Batches as columns, and the operators of a stage over them."""

    def __init__(self, batches: Sequence[Batch], pool: Pool) -> None:
        most = max((batch.tokens for batch in batches), default=1)
        padded = padded_tokens(max(most, 1), capture_sizes(pool.scheduler))
        dp = pool.parallel.dp
        self.steps = len(batches)
        self.tokens = padded[[batch.tokens for batch in batches]]
        self.all_tokens = dp * padded[[-(-batch.all_tokens // dp) for batch in batches]]
        self.decodes = np.array([float(batch.decodes) for batch in batches])
        self.kv = np.array([batch.kv_tokens for batch in batches])
        self.sampled = np.ceil(np.array([float(batch.sampled) for batch in batches]) / dp)
        self.beside = np.array([float(len(batch.chunks)) for batch in batches])
        self.chunk_step = np.repeat(np.arange(self.steps), [len(batch.chunks) for batch in batches])
        flat = [chunk for batch in batches for chunk in batch.chunks]
        self.chunks = np.array(flat, np.float64).reshape(-1, 2)

    def priced(self, shard: Shard, hardware: StageHardware) -> Mapping[str, F8]:
        """Family → seconds [k] of one stage."""
        found: dict[str, F8] = {}
        busy, decoding, sampling = (np.flatnonzero(c > 0) for c in (self.tokens, self.decodes, self.sampled))
        self._add(found, token_operators(shard, self.tokens[busy]), hardware, busy)
        self._add(found, expert_operators(shard, self.all_tokens[busy]), hardware, busy)
        self._add(found, transfer_operators(shard, self.tokens[busy]), hardware, busy)
        if len(decoding):
            beside = self.beside[decoding]
            operators = decode_operators(shard, self.decodes[decoding], self.kv[decoding], beside_prefill=beside)
            self._add(found, operators, hardware, decoding)
        if shard.last and len(sampling):
            self._add(found, head_operators(shard, self.sampled[sampling]), hardware, sampling)
        if len(self.chunks):
            new, context = self.chunks[:, 0], self.chunks[:, 1]
            together = np.maximum(1.0, _LAUNCH_TOKENS / new)
            operators = prefill_operators(shard, together, new, context)
            self._add(found, operators, hardware, self.chunk_step, share=1.0 / together)
        return found

    def _add(
        self,
        found: dict[str, F8],
        operators: Sequence[Operator],
        hardware: StageHardware,
        steps: NDArray[np.intp] | I8,
        share: F8 | float = 1.0,
    ) -> None:
        """Add each operator's seconds to its family at its steps."""
        for operator in operators:
            seconds = operator.count * hardware.cost_model.price(operator).seconds * share
            total = found.setdefault(operator.family, np.zeros(self.steps))
            total += np.bincount(steps, weights=np.broadcast_to(seconds, np.shape(steps)), minlength=self.steps)
