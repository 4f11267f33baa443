"""Direct sends between all pairs, and reductions inside the switch that joins all ranks (NVLink SHARP)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simtool.errors import InputError
from simtool.simulator.collectives.draft import Draft
from simtool.simulator.tasks.task import Task


def traffic_matrix(traffic: ArrayLike, count: int) -> NDArray[np.float64]:
    """[n, n] bytes from row to column, checked."""
    table = np.asarray(traffic, np.float64)
    if table.shape != (count, count) or not (np.isfinite(table).all() and (table >= 0).all()):
        raise InputError(table.shape, f"is no traffic of {count} ranks", "bytes [ranks, ranks], finite, not negative")
    return table


def add_direct(
    draft: Draft, ranks: Sequence[int], traffic: ArrayLike, *, stepped: bool = False, after: Sequence[int] = ()
) -> list[int]:
    """Every rank sends traffic[i, j] bytes from ranks[i] to ranks[j], all at once. Bytes to itself cost nothing.

    A rank's sends are one task (it takes turns, so that the slowest holds up all), or, stepped, a task each.
    """
    table, ends = traffic_matrix(traffic, len(ranks)), list[int]()
    for row, source in enumerate(ranks):
        sends = [(source, ranks[column], float(size)) for column, size in enumerate(table[row]) if size > 0]
        sends = [send for send in sends if send[1] != source]
        lanes = max(len(sends), 1) if stepped else 1
        groups = [[send] for send in sends] if stepped else [sends] if sends else []
        ends += [draft.add("direct", group, after=after, lanes=lanes) for group in groups]
    return ends


def even_pairs(count: int, amount: float) -> NDArray[np.float64]:
    """Traffic in which each rank sends `amount` bytes to each other."""
    return amount * (1.0 - np.eye(count))


def add_in_switch(draft: Draft, ranks: Sequence[int], amount: float) -> list[int]:
    """All-reduce in a switch: each rank pushes its buffer, the switch adds up and multicasts the sum. One task."""
    links = {(link.source, link.target): link for link in draft.router.topology.links}
    devices = [draft.router.topology.devices[rank] for rank in ranks]
    for switch in sorted(draft.router.topology.reducing):
        ways = [(links.get((device, switch)), links.get((switch, device))) for device in devices]
        used = [link for way in ways for link in way if link is not None]
        if len(used) == 2 * len(devices):
            draft.tasks.append(
                Task(
                    name="in-switch",
                    after=draft.after,
                    work={link.name: amount for link in used if amount > 0},
                    latency_s=2 * max(link.latency_s for link in used) + draft.costs.call_s,
                    holds={draft.sm[rank]: draft.sms for rank in ranks if rank in draft.sm and draft.sms > 0},
                    weight=1.0 / amount if amount > 0 else 0.0,
                    family="collective",
                )
            )
            return [draft.first + len(draft.tasks) - 1]
    raise InputError("nvls", "needs one switch that reduces and joins all ranks", "use ring or tree")
