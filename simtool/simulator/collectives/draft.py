"""Draft: the tasks of collectives while they are put together. A task is one transfer, or several that go as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from simtool.hardware.routes import Router
from simtool.simulator.tasks.task import Resource, Task

Send = tuple[int, int, float]  # source rank, target rank, bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SendCosts:
    """What sending costs beside bytes and link latency.

    call_s: once, before a rank's first send (launch, packing). message_s: of the sender's time, a message (it issues
    them one by one, while earlier ones are under way). message_bytes: how large a message is; 0: a send is one.
    """

    call_s: float = 0.0
    message_s: float = 0.0
    message_bytes: float = 0.0


@dataclass(slots=True, kw_only=True)
class Draft:
    """tasks: so far. first: index that tasks[0] will have in the graph. after: tasks of that graph before all of them.

    sms: multiprocessors that a rank gives to the collective while it sends; sm: rank → the resource they are of (ranks
    without one give none).
    """

    router: Router
    first: int = 0
    after: tuple[int, ...] = ()
    costs: SendCosts = field(default_factory=SendCosts)
    sms: float = 0.0
    sm: Mapping[int, str] = field(default_factory=dict)
    tasks: list[Task] = field(default_factory=list)

    def add(
        self,
        name: str,
        sends: Sequence[Send],
        *,
        after: Sequence[int] = (),
        rounds: int = 1,
        stream: str = "",
        lanes: int = 1,
    ) -> int:
        """One task for `sends` that run in proportion: its index in the graph.

        rounds: messages one after the other on each way, whose latency adds up. lanes: tasks of a rank that may run at
        once, which share its multiprocessors. The weight makes flows that share a link equally fast, in bytes/s.
        """
        work: dict[str, float] = {}
        slowest = 0.0
        for source, target, amount in sends:
            slowest = max(slowest, self.router.latency_s(self.router.path(source, target)))
            for link, share in self.router.shares(source, target).items():
                used = self.router.topology.links[link].name
                work[used] = work.get(used, 0.0) + amount * share
            if self.costs.message_s > 0 and amount > 0:
                issue = issue_name(source)
                work[issue] = work.get(issue, 0.0) + self._messages(amount) * self.costs.message_s
        sizes = [amount for source, target, amount in sends if amount > 0 and source != target]
        self.tasks.append(
            Task(
                name=name,
                stream=stream,
                after=tuple(after) or self.after,
                work={link: amount for link, amount in work.items() if amount > 0},
                latency_s=rounds * slowest + (0.0 if after else self.costs.call_s),
                holds=self._holds(sends, lanes),
                weight=len(sizes) / sum(sizes) if sizes else 0.0,
                family="collective",
            )
        )
        return self.first + len(self.tasks) - 1

    def resources(self) -> tuple[Resource, ...]:
        """Links that the tasks use, and ranks that issue messages."""
        used = {name for task in self.tasks for name in task.work}
        links = [Resource(name=name, rate=rate) for name, rate in self.router.topology.rates.items() if name in used]
        ranks = range(len(self.router.topology.devices))
        return (*links, *(Resource(name=issue_name(rank), rate=1.0) for rank in ranks if issue_name(rank) in used))

    def _messages(self, amount: float) -> float:
        return amount / self.costs.message_bytes if self.costs.message_bytes > 0 else 1.0

    def _holds(self, sends: Sequence[Send], lanes: int) -> dict[str, float]:
        if self.sms <= 0:
            return {}
        return {self.sm[source]: self.sms / lanes for source, _, _ in sends if source in self.sm}


def issue_name(rank: int) -> str:
    """The resource that a rank issues messages on: seconds a second."""
    return f"rank{rank}.issue"
