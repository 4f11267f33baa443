"""The walk: steps of visits, one after the other. A serving replica advances its store one step at a time."""

from __future__ import annotations

from simtool.simulator.jit import jit_entry
from simtool.simulator.offload.arrays import BUSY, END, LINK_BUSY, NO_PREFETCH, PREFETCH, SSD_BUSY, Arrays
from simtool.simulator.offload.decide import decide, release
from simtool.simulator.offload.link import run_links
from simtool.simulator.offload.prefetching import look_ahead
from simtool.simulator.offload.visit import run_visit


@jit_entry
def advance_store(a: Arrays, first: int, last: int, now_s: float) -> float:
    """Run the steps from `first` up to `last` (not included) from `now_s` on: the time at their end."""
    layers = a.layer_pool.shape[0]
    for step in range(first, last):
        load_s, read_s = a.link_f[0, BUSY], a.link_f[1, BUSY]
        run_links(a, now_s)
        if a.rules[PREFETCH] != NO_PREFETCH:
            look_ahead(a, step * layers, step * layers, now_s)
        now_s += a.step_s[min(step, a.step_s.shape[0] - 1)]
        for layer in range(layers):
            now_s = run_visit(a, step, layer, now_s)
        a.step_out[step, LINK_BUSY] = a.link_f[0, BUSY] - load_s
        a.step_out[step, SSD_BUSY] = a.link_f[1, BUSY] - read_s
        a.step_out[step, END] = now_s
    return now_s


@jit_entry
def decide_visit(a: Arrays, layer: int) -> None:
    """A layer's decisions alone, of the first step: no time passes and nothing moves."""
    decide(a, 0, layer)
    release(a)
