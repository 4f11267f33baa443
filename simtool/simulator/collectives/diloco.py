"""DiLoCo among peers that come and go: inner steps alone, then an all-reduce of what they changed (pseudo-gradients).

Synchronous: peers wait for the all-reduce. Asynchronous: it runs while the next inner steps do, and its result is
applied after them; peers wait only where it is not over by then. A peer that fails during an all-reduce aborts it, and
the others do it again without the peer; one that joins starts with the next round.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import simpy

from simtool.errors import InputError

Order = Callable[[tuple[int, ...]], tuple[int, ...]]
Process = Generator[simpy.Event, Any, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerEvent:
    """fail: at once, and others notice late. leave: after its round. join: with the next round."""

    at_s: float
    peer: int
    kind: Literal["fail", "leave", "join"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Diloco:
    """step_s: seconds of an inner step, by peer (joining ones too). peers: those at the start. rounds: outer steps.

    detect_s: from a failure to the abort that all know of. overlap: asynchronous.
    """

    peers: tuple[int, ...]
    step_s: Mapping[int, float]
    inner_steps: int
    rounds: int
    overlap: bool = False
    detect_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OuterRound:
    """ring: who took part in the all-reduce that was finished. attempts: 1 + those aborted."""

    ring: tuple[int, ...]
    start_s: float
    end_s: float
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DilocoRun:
    """inner_steps, exposed_s: by peer, steps done and seconds waited for others or the network.

    staleness_steps: inner steps that a peer makes between giving a pseudo-gradient and applying the mean.
    """

    rounds: tuple[OuterRound, ...]
    elapsed_s: float
    inner_steps: Mapping[int, int]
    exposed_s: Mapping[int, float]
    staleness_steps: int

    @property
    def steps_per_s(self) -> float:
        """Inner steps of all peers a second."""
        return sum(self.inner_steps.values()) / self.elapsed_s if self.elapsed_s else 0.0


def simulate_diloco(
    setup: Diloco,
    reduce_s: Callable[[tuple[int, ...]], float],
    order: Order | None = None,
    events: Sequence[PeerEvent] = (),
) -> DilocoRun:
    """Run all rounds. reduce_s: seconds of the all-reduce in a ring (a simulated collective, say), of one peer 0.

    order: ring of a set of peers (ascending); as they are, by default.
    """
    _check(setup, events)
    env = simpy.Environment()
    run = _Run(env=env, setup=setup, reduce_s=reduce_s, order=order or (lambda peers: peers))
    for peer in setup.peers:
        run.enter(peer, 0)
    for event in events:
        env.process(run.happen(event))
    env.run(until=env.process(run.coordinate()))
    return DilocoRun(
        rounds=tuple(run.records),
        elapsed_s=float(env.now),
        inner_steps=run.steps,
        exposed_s=run.exposed,
        staleness_steps=setup.inner_steps if setup.overlap else 0,
    )


@dataclass(slots=True, kw_only=True)
class _Run:
    """gone[peer] happens when it fails or has left; first[peer]: its first round; arrived[peer]: round → event."""

    env: simpy.Environment
    setup: Diloco
    reduce_s: Callable[[tuple[int, ...]], float]
    order: Order
    done: list[simpy.Event] = field(default_factory=list)
    gone: dict[int, simpy.Event] = field(default_factory=dict)
    first: dict[int, int] = field(default_factory=dict)
    arrived: dict[int, dict[int, simpy.Event]] = field(default_factory=dict)
    workers: list[simpy.Process] = field(default_factory=list)
    leaving: set[int] = field(default_factory=set)
    steps: dict[int, int] = field(default_factory=dict)
    exposed: dict[int, float] = field(default_factory=dict)
    records: list[OuterRound] = field(default_factory=list)

    def enter(self, peer: int, first: int) -> None:
        """A peer takes part from round `first` on."""
        self.gone[peer], self.first[peer] = self.env.event(), first
        self.arrived[peer] = {k: self.env.event() for k in range(first, self.setup.rounds)}
        self.steps.setdefault(peer, 0)
        self.exposed.setdefault(peer, 0.0)
        self.workers.append(self.env.process(self.work(peer)))

    def work(self, peer: int) -> Process:
        """Inner steps, then whatever has to be waited for, round after round."""
        gone, setup = self.gone[peer], self.setup
        for k in range(self.first[peer], setup.rounds):
            if peer in self.leaving and not gone.triggered:
                gone.succeed("left")
            if not gone.triggered:
                yield self.env.timeout(setup.inner_steps * setup.step_s[peer]) | gone
            if gone.triggered:
                return
            self.steps[peer] += setup.inner_steps
            if setup.overlap and k > self.first[peer]:
                yield from self._wait(peer, k - 1)
            if self._is_gone(peer):  # while it waited
                return
            self.arrived[peer][k].succeed()
            if not setup.overlap or k == setup.rounds - 1:
                yield from self._wait(peer, k)

    def _is_gone(self, peer: int) -> bool:
        return bool(self.gone[peer].triggered)

    def _wait(self, peer: int, k: int) -> Process:
        since = self.env.now
        yield self.done[k] | self.gone[peer]
        self.exposed[peer] += self.env.now - since

    def coordinate(self) -> Process:
        """Each round: all have arrived (or are gone), then the all-reduce among those who are there."""
        self.done += [self.env.event() for _ in range(self.setup.rounds)]
        for k in range(self.setup.rounds):
            members = [peer for peer, first in self.first.items() if first <= k]
            for peer in members:
                yield self.arrived[peer][k] | self.gone[peer]
            missing = [peer for peer in members if not self.arrived[peer][k].triggered]
            if any(self.gone[peer].value == "failed" and self.first[peer] <= k for peer in missing):
                yield self.env.timeout(self.setup.detect_s)
            for peer in missing:
                del self.first[peer]
            yield from self._reduce([peer for peer in members if peer not in missing])
            self.done[k].succeed()
            yield self.env.timeout(0.0)  # who has waited for this round to join
        yield simpy.AllOf(self.env, self.workers)

    def _reduce(self, members: list[int]) -> Process:
        start, attempts = self.env.now, 1
        while members:
            ring = self.order(tuple(sorted(members)))
            over = self.env.timeout(self.reduce_s(ring) if len(ring) > 1 else 0.0)
            yield simpy.AnyOf(self.env, [over, *(self.gone[peer] for peer in ring)])
            if over.processed:
                self.records.append(OuterRound(ring=ring, start_s=start, end_s=self.env.now, attempts=attempts))
                return
            yield self.env.timeout(self.setup.detect_s)
            for peer in [peer for peer in members if self.gone[peer].triggered]:
                members.remove(peer)
                del self.first[peer]
            attempts += 1

    def happen(self, event: PeerEvent) -> Process:
        """Something happens to a peer; what cannot happen any more does not."""
        yield self.env.timeout(event.at_s)
        present = event.peer in self.gone and not self.gone[event.peer].triggered
        if event.kind == "fail" and present:
            self.gone[event.peer].succeed("failed")
        elif event.kind == "leave" and present:
            self.leaving.add(event.peer)
        elif event.kind == "join" and not present:
            k = next((k for k, done in enumerate(self.done) if not done.triggered), len(self.done))
            if k + 1 < self.setup.rounds:
                yield self.done[k]
                if event.peer in self.first:  # joined twice
                    return
                self.leaving.discard(event.peer)
                self.enter(event.peer, k + 1)


def _check(setup: Diloco, events: Sequence[PeerEvent]) -> None:
    if not setup.peers or setup.inner_steps < 1 or setup.rounds < 1 or not setup.detect_s >= 0:
        raise InputError(setup, "needs peers, inner steps and rounds, and detect_s >= 0")
    for peer in {*setup.peers, *(event.peer for event in events)}:
        if not (setup.step_s.get(peer, 0.0) > 0 and math.isfinite(setup.step_s[peer])):
            raise InputError(peer, "has no seconds an inner step", "step_s of every peer, above 0")
    if any(not (event.at_s >= 0 and math.isfinite(event.at_s)) for event in events):
        raise InputError([event.at_s for event in events], "must be times of 0 or later")
