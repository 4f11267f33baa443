"""Routes: which links a flow takes. Of equal-cost paths a hash picks one (ECMP), unless the path is planned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from simtool.errors import InputError
from simtool.hardware.topology import DirectedLink, Topology

Path = tuple[int, ...]  # places in Topology.links, from source to target
_MASK = (1 << 64) - 1


@dataclass(slots=True, kw_only=True)
class Router:
    """Shortest paths between devices (fewest links; no device forwards for others, algorithms do that).

    seed: of the hash that each switch picks the next hop with. planned: (source rank, target rank) → path instead.
    spread: packets of a flow are spread evenly over all its paths (adaptive routing, packet spraying), not hashed.
    """

    topology: Topology
    seed: int = 0
    spread: bool = False
    planned: Mapping[tuple[int, int], Path] = field(default_factory=dict)
    _into: dict[int, dict[str, list[int]]] = field(default_factory=dict)  # source → place → last links of its paths
    _found: dict[tuple[int, int, int], Path] = field(default_factory=dict)
    _leaving: dict[str, list[int]] = field(default_factory=dict)

    def path(self, source: int, target: int, flow: int = 0) -> Path:
        """Links from rank `source` to rank `target`; () to itself. flow: tells flows between the same pair apart."""
        if (source, target) in self.planned:
            return self.planned[source, target]
        key = (source, target, flow)
        if key not in self._found:
            self._found[key] = self._walk(source, target, flow)
        return self._found[key]

    def paths(self, source: int, target: int) -> tuple[Path, ...]:
        """All equal-cost paths."""
        into = self._reach(source, target)
        return tuple(self._all(into, self.topology.devices[source], self.topology.devices[target]))

    def shares(self, source: int, target: int) -> dict[int, float]:
        """Link → share of a flow's bytes that it carries: 1 on one path, less where packets are spread."""
        if not self.spread or (source, target) in self.planned:
            return dict.fromkeys(self.path(source, target), 1.0)
        into, start = self._reach(source, target), self.topology.devices[source]
        carried: dict[int, float] = {}
        front = {self.topology.devices[target]: 1.0} if source != target else {}
        while front:
            behind: dict[str, float] = {}
            for place, share in front.items():
                for link in into[place]:
                    carried[link] = share / len(into[place])
                    before = self.topology.links[link].source
                    if before != start:
                        behind[before] = behind.get(before, 0.0) + carried[link]
            front = behind
        return carried

    def latency_s(self, path: Path) -> float:
        """Seconds of a message without bytes."""
        return sum(self.topology.links[link].latency_s for link in path)

    def links(self, path: Path) -> list[DirectedLink]:
        """The links of a path."""
        return [self.topology.links[link] for link in path]

    def _walk(self, source: int, target: int, flow: int) -> Path:
        into, start = self._reach(source, target), self.topology.devices[source]
        place, path = self.topology.devices[target], list[int]()
        while place != start:
            choices = into[place]
            hop = 0 if len(choices) == 1 else mixed(self.seed, source, target, flow, len(path)) % len(choices)
            path.append(choices[hop])
            place = self.topology.links[path[-1]].source
        return tuple(reversed(path))

    def _all(self, into: Mapping[str, list[int]], start: str, place: str) -> Iterator[Path]:
        if place == start:
            yield ()
            return
        for link in into[place]:
            for path in self._all(into, start, self.topology.links[link].source):
                yield (*path, link)

    def _reach(self, source: int, target: int) -> dict[str, list[int]]:
        count = len(self.topology.devices)
        if not (0 <= source < count and 0 <= target < count):
            raise InputError((source, target), f"are no ranks of {count} devices")
        if source not in self._into:
            self._into[source] = self._spread(self.topology.devices[source])
        into = self._into[source]
        if source != target and self.topology.devices[target] not in into:
            raise InputError(self.topology.devices[target], f"cannot be reached from {self.topology.devices[source]}")
        return into

    def _spread(self, start: str) -> dict[str, list[int]]:
        """Breadth first: place → the links that shortest paths from `start` enter it by."""
        if not self._leaving:
            for index, link in enumerate(self.topology.links):
                self._leaving.setdefault(link.source, []).append(index)
        devices, into, depth = set(self.topology.devices), dict[str, list[int]](), {start: 0}
        front = [start]
        while front:
            following = []
            for place in front:
                for index in self._leaving.get(place, ()) if place == start or place not in devices else ():
                    target = self.topology.links[index].target
                    if target not in depth:
                        depth[target] = depth[place] + 1
                        following.append(target)
                    if depth[target] == depth[place] + 1:
                        into.setdefault(target, []).append(index)
            front = following
        return into


def mixed(*keys: int) -> int:
    """A hash of whole numbers that is the same everywhere (splitmix64 of each, one after the other)."""
    state = 0
    for key in keys:
        state = (state ^ (key & _MASK)) + 0x9E3779B97F4A7C15 & _MASK
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ state >> 27) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state


def path_loads(topology: Topology, flows: Sequence[tuple[Path, float]]) -> dict[str, float]:
    """Link → seconds that the bytes of (path, bytes) flows keep it busy at its rate; links without flows are absent."""
    loads: dict[str, float] = {}
    for path, amount in flows:
        for place in path:
            link = topology.links[place]
            loads[link.name] = loads.get(link.name, 0.0) + amount / link.bytes_per_s
    return loads
