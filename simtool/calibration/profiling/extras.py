"""Extras: what is measured beside the kernels of a model, as the session asks for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial

import torch

from simtool.calibration.measured_set import HostTime
from simtool.calibration.profiling.arena import Arena
from simtool.calibration.profiling.bench import Extra
from simtool.calibration.profiling.clock import Clock
from simtool.calibration.profiling.collectives import timed_collectives
from simtool.calibration.profiling.contention import pairs_of, timed_pair
from simtool.calibration.profiling.copies import copy_sizes, kinds_of, timed_copy
from simtool.calibration.profiling.host_times import host_times
from simtool.calibration.profiling.planning import HOST_SUBJECT, collective_subject, contention_subject, copy_subject
from simtool.models.config import load_architecture


def torch_extras(device: str, arena: Arena, clock: Clock, dtype: str, models: Sequence[str] = ()) -> Sequence[Extra]:
    """Everything that `device` has, in the order to measure it. dtype: of the GEMMs that contend.

    models: those to be served, whose layers say what the executor's host has to do in a step.
    """
    extras = [Extra(group="host", subject=HOST_SUBJECT, run=partial(_host_rows, device, models))]
    for kind in kinds_of(device):
        for size in copy_sizes(arena.size_bytes):
            copy = partial(timed_copy, kind, size, arena, clock)
            extras.append(Extra(group="copies", subject=copy_subject(kind, size), run=copy))
    for first, second in pairs_of(device):
        pair = partial(timed_pair, first, second, arena, clock, dtype)
        extras.append(Extra(group="contention", subject=contention_subject(first, second), run=pair))
    library = "nccl" if device == "cuda" else "gloo"
    for ranks in rank_counts(device):
        group = partial(timed_collectives, library, ranks)
        extras.append(Extra(group="collectives", subject=collective_subject(library, ranks), run=group))
    return extras


def _host_rows(device: str, models: Sequence[str]) -> Sequence[HostTime]:
    """Launches, and a step of the executor; without the latter where simpy, which drives it, is not installed."""
    rows = list(host_times(device))
    try:
        from simtool.calibration.executor.host_cost import engine_times
    except ModuleNotFoundError:
        return rows
    return [*rows, *engine_times(device, [load_architecture(model) for model in models])]


def rank_counts(device: str) -> list[int]:
    """Powers of two up to the GPUs, or to the CPU's cores (at most 4 processes)."""
    most = torch.cuda.device_count() if device == "cuda" else min(4, len(os.sched_getaffinity(0)))
    return [ranks for ranks in (2, 4, 8, 16) if ranks <= most]
