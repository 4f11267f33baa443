"""Task: work on shared resources. Resource: a server with a rate. Store: a room with a capacity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A server: `rate` units a second, shared by the tasks that run on it (SMs: multiprocessors; links, HBM: bytes).

    A rate of 0 is a resource that has failed: its tasks wait for a RateChange.
    """

    name: str
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A room of `capacity` units (bytes of HBM, slots): tasks take from it when they start and give back at an end."""

    name: str
    capacity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RateChange:
    """From `at_s` on, `resource` serves `rate` units a second."""

    at_s: float
    resource: str
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One piece of work, e.g. a chunk of a kernel or of a transfer.

    stream: tasks of one stream run one after another, in the order of the graph; "" has no stream.
    after: indices of tasks that must have ended.
    work: resource → units. Its parts are served together, in proportion (a roofline's `max`, not a sum).
    latency_s: passes before the work is served (launch, hop) and shares with nobody.
    shortest_s: the work takes no less, however free the resources are (a kernel's measured time alone).
    holds: resource → units kept from all work, its own too, while it runs (multiprocessors of a communication kernel).
        It waits until they are free.
    takes, gives: store → units, at its start and at its end. It waits until they are there.
    priority: strict; a smaller number is served first, and is first in the line for what is held and taken; those
        behind it that fit pass.
    weight: its share beside others of its priority, in speed (1 / seconds). 0: its speed alone, so that all are slowed
        by the same factor; link rate / bytes gives flows equal bytes a second (max-min fair in the networks' sense).
    tiles: output tiles of a kernel whose work on the graph's `tiled` resource runs in waves (0: no waves): it is no
        faster than whole waves on the units that it has or that are free.
    kind: the row of the graph's interference table ("": none).
    family: what it is, for views ("gemm", "collective", …).
    """

    name: str
    stream: str = ""
    after: tuple[int, ...] = ()
    work: Mapping[str, float] = field(default_factory=dict)
    latency_s: float = 0.0
    shortest_s: float = 0.0
    holds: Mapping[str, float] = field(default_factory=dict)
    takes: Mapping[str, float] = field(default_factory=dict)
    gives: Mapping[str, float] = field(default_factory=dict)
    priority: int = 0
    weight: float = 0.0
    tiles: int = 0
    kind: str = ""
    family: str = ""
