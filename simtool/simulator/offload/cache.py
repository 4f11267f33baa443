"""ExpertCache: a store that somebody else drives, a serving replica by steps or an executor by layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simtool.simulator.offload import arrays as col
from simtool.simulator.offload.arrays import Arrays
from simtool.simulator.offload.building import Bools, make_arrays
from simtool.simulator.offload.handle import handle
from simtool.simulator.offload.loop import advance_store, decide_visit
from simtool.simulator.offload.needs import Needs, no_needs
from simtool.simulator.offload.policy import OffloadPolicy
from simtool.simulator.offload.prices import Prices
from simtool.simulator.offload.store import OffloadStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """What a layer does with the objects it needs: hits run first, then the loads in order, and the CPU's beside."""

    hits: tuple[int, ...]
    loads: tuple[int, ...]
    cpu: tuple[int, ...]


class ExpertCache:
    """The state of one store, kept from step to step. `run` and `visit` may not be mixed.

    Policies that know the future ("farthest") are refused by the lack of one: they see no needs after the step.
    """

    def __init__(
        self, store: OffloadStore, policy: OffloadPolicy, prices: Prices, *, resident: Bools | None = None
    ) -> None:
        """Prices without a row a step: every step is priced alike, or by `run`'s own `dense_s`."""
        self._store, self._layers = store, store.layers
        blank = no_needs(store.layers, 1)
        self._arrays = make_arrays(store, policy, blank, prices, guess=blank, resident=resident)
        self.now_s = 0.0

    def run(self, needs: Needs, *, guess: Needs | None = None, dense_s: Sequence[float] | None = None) -> float:
        """One step from `now_s` on: its seconds. needs, guess: of one step; dense_s: [layers], of this step."""
        a = self._with(needs, guess)
        if dense_s is not None:
            a.dense_s[0] = dense_s
        began_s = self.now_s
        self.now_s = float(advance_store(handle(a), 0, 1, began_s))
        self._forget()
        return self.now_s - began_s

    def visit(self, layer: int, objects: Sequence[int]) -> Decisions:
        """Decide what one layer does, whatever the time is; what is loaded is taken to arrive before it is used."""
        starts = np.zeros(self._layers + 1, np.int64)
        starts[layer + 1 :] = len(objects)
        listed = np.array(sorted(objects), np.int64)
        a = self._with(Needs(starts=starts, objects=listed, tokens=np.ones_like(listed), layers=self._layers), None)
        decide_visit(handle(a), layer)
        ordered, on_cpu = int(a.counters[col.ORDERED]), int(a.counters[col.ON_CPU])
        rows = a.order_i[:ordered]
        missed = rows[:, col.CAUSE] == col.MISSED
        self._forget()
        return Decisions(
            hits=tuple(rows[~missed, col.OBJECT].tolist()),
            loads=tuple(rows[missed, col.OBJECT].tolist()),
            cpu=tuple(a.order_i[len(a.order_i) - on_cpu :, col.OBJECT][::-1].tolist()),
        )

    @property
    def hits(self) -> int:
        """Of all visits."""
        return int(self._arrays.layer_count[:, col.HITS].sum())

    @property
    def misses(self) -> int:
        """Of all visits."""
        return int(self._arrays.layer_count[:, col.MISSES].sum())

    def held(self) -> Bools:
        """bool[n]: objects that have a place in HBM."""
        return np.asarray(self._arrays.object_i[:, col.POOL] != col.NONE)

    def _with(self, needs: Needs, guess: Needs | None) -> Arrays:
        known = no_needs(self._layers, 1) if guess is None else guess
        return self._arrays._replace(
            need_start=needs.starts.astype(np.int64),
            need_object=needs.objects.astype(np.int64),
            need_tokens=needs.tokens.astype(np.int64),
            need_light=np.zeros(0, np.int64) if needs.light is None else needs.light.astype(np.int64),
            guess_start=known.starts.astype(np.int64),
            guess_object=known.objects.astype(np.int64),
        )

    def _forget(self) -> None:
        """The next step's visits have the numbers of this one's."""
        self._arrays.object_i[:, [col.LOCK, col.WANTED]] = col.NONE
