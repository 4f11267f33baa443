"""A walk's decisions as a task graph, whose simulator shares no code with the walk: times must agree."""

from simtool.simulator.offload.prices import Prices
from simtool.simulator.offload.walk import Walk
from simtool.simulator.tasks.graph import TaskGraph
from simtool.simulator.tasks.task import Resource, Task


class Draft:
    """Tasks by name."""

    def __init__(self):
        self.tasks, self.place = [], {}

    def add(self, name, after=(), **more):
        self.place[name] = len(self.tasks)
        self.tasks.append(Task(name=str(name), after=tuple(self.place[before] for before in after), **more))
        return name


def graph_of(done: Walk, needs, prices: Prices, *, together: bool, from_ssd: bool = False) -> TaskGraph:
    """Dense parts and objects on one stream of the device, transfers on a link, demand before prefetches.

    An object is computed after its latest transfer, hits before misses, each by number. together: all of a visit's
    objects wait for the last one. from_ssd: every transfer is read from the SSD first.
    """
    draft, moved, rows = Draft(), {}, list(range(len(done.transfers.item)))
    before = None
    for visit in range(len(needs.starts) - 1):
        layer = visit % needs.layers
        own = [row for row in rows if done.transfers.visit[row] == visit]
        ends = [] if before is None else [before]
        dense = draft.add(("dense", visit), ends, stream="gpu", latency_s=float(prices.dense_s[0, layer]))
        early = [row for row in own if done.transfers.urgency[row] == 1 and starts_early(done, row, visit, prices)]
        for row in early:
            transfer(draft, done, prices, row, ends, moved, from_ssd)
        span = range(needs.starts[visit], needs.starts[visit + 1])
        demanded = {int(done.transfers.item[row]): row for row in own if done.transfers.urgency[row] == 0}
        order = sorted(span, key=lambda need: (int(needs.objects[need]) in demanded, int(needs.objects[need])))
        before, computed = dense, []
        for need in order:
            row = demanded.get(int(needs.objects[need]))
            if row is not None:
                wait = int(done.transfers.wait[row])
                transfer(draft, done, prices, row, [computed[wait] if wait >= 0 else dense], moved, from_ssd)
            if not together:
                computed.append(one(draft, needs, prices, need, [moved.get(int(needs.objects[need]))]))
        if together:
            arrivals = [moved.get(int(needs.objects[need])) for need in order]
            computed = [one(draft, needs, prices, need, arrivals) for need in order]
        before = computed[-1] if computed else dense
        for row in own:
            if done.transfers.urgency[row] == 1 and row not in early:
                transfer(draft, done, prices, row, [dense], moved, from_ssd)
    links = tuple(Resource(name=name, rate=1.0) for name in ("link", "ssd"))
    return TaskGraph(resources=links, tasks=tuple(draft.tasks))


def starts_early(done, row, visit, prices):
    """Issued as its step began, before the dense part of the first layer."""
    layers = prices.dense_s.shape[1]
    begin = done.end_s[visit // layers - 1] if visit >= layers else 0.0
    return visit % layers == 0 and done.transfers.issue_s[row] <= begin


def transfer(draft, done, prices, row, after, moved, from_ssd):
    item, urgency = int(done.transfers.item[row]), int(done.transfers.urgency[row])
    if from_ssd:
        work = {"ssd": float(prices.read_s[item])}
        after = [draft.add(("read", row), after, stream=f"read {urgency}", work=work, priority=urgency)]
    work = {"link": float(prices.load_s[item])}
    moved[item] = draft.add(("load", row), after, stream=f"load {urgency}", work=work, priority=urgency)


def one(draft, needs, prices, need, arrivals):
    seconds = float(prices.expert_s[0, 0] + needs.tokens[need] * (prices.expert_s[0, 1] - prices.expert_s[0, 0]))
    after = [arrival for arrival in arrivals if arrival is not None]
    return draft.add(("compute", need), after, stream="gpu", latency_s=seconds)
