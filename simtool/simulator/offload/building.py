"""From store, policy, needs and prices to the arrays of the walk, checked."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError
from simtool.simulator.offload import arrays as col
from simtool.simulator.offload.arrays import F8, I8, Arrays
from simtool.simulator.offload.needs import Needs, next_visits, no_needs
from simtool.simulator.offload.policy import EVICTS, MISSES, PREFETCHES, OffloadPolicy
from simtool.simulator.offload.prices import Prices
from simtool.simulator.offload.store import OffloadStore

Bools = NDArray[np.bool_]


def make_arrays(
    store: OffloadStore,
    policy: OffloadPolicy,
    needs: Needs,
    prices: Prices,
    *,
    guess: Needs | None = None,
    resident: Bools | None = None,
    in_host: Bools | None = None,
    records: int = 0,
) -> Arrays:
    """Arrays at the start of a walk. guess: what is predicted of each visit; resident, in_host: bool[n] (default: none
    in HBM, all in host memory or, where it is limited, the first ones that fit). records: transfers to keep.

    Raises InputError where the parts do not fit each other.
    """
    _check(store, policy, needs, prices, guess)
    n, layers, steps = len(store.object_layer), store.layers, needs.steps
    known = guess if guess is not None and policy.prefetch != "none" else no_needs(layers, steps)
    a = Arrays(
        object_i=_objects(store, needs),
        object_f=_seconds(prices, n),
        pool_i=_pools(store),
        layer_pool=store.pool.astype(np.int64),
        rules=_rules(policy),
        counters=np.array([0, policy.seed, 0, 0, 0], np.int64),
        order_i=np.zeros((int(np.diff(store.starts).max()), 4), np.int64),
        need_start=needs.starts.astype(np.int64),
        need_object=needs.objects.astype(np.int64),
        need_tokens=needs.tokens.astype(np.int64),
        need_next=next_visits(needs, n) if policy.evict == "farthest" else np.zeros(0, np.int64),
        need_light=np.zeros(0, np.int64) if needs.light is None else needs.light.astype(np.int64),
        guess_start=known.starts.astype(np.int64),
        guess_object=known.objects.astype(np.int64),
        **_priced(prices),
        **_blank(layers, steps, records),
    )
    _place(a, store, resident, in_host)
    return a


def _priced(prices: Prices) -> dict[str, Any]:
    """The walk's own copies, which a caller may change from step to step."""
    return {
        "dense_s": _table(prices.dense_s),
        "expert_s": _table(prices.expert_s),
        "cpu_s": _table(prices.expert_s if prices.cpu_s is None else prices.cpu_s),
        "step_s": np.atleast_1d(np.asarray(prices.step_s, np.float64)).copy(),
        "sync_s": np.array([prices.cpu_sync_s]),
    }


def _blank(layers: int, steps: int, records: int) -> dict[str, Any]:
    """Empty queues, and what the walk writes."""
    return {
        "queue": np.full((6, 2), col.NONE, np.int64),
        "link_f": np.zeros((2, 2)),
        "layer_count": np.zeros((layers, 10), np.int64),
        "step_count": np.zeros((steps, 10), np.int64),
        "layer_s": np.zeros((layers, 7)),
        "step_out": np.zeros((steps, 7)),
        "log_i": np.zeros((records, 4), np.int64),
        "log_f": np.full((records, 2), np.nan),
    }


def _check(store: OffloadStore, policy: OffloadPolicy, needs: Needs, prices: Prices, guess: Needs | None) -> None:
    _check_needs(store, needs, "needs")
    if policy.prefetch != "none":
        if guess is None:
            raise InputError(policy.name, "prefetches and is given no predictions")
        _check_needs(store, guess, "guess")
        if len(guess.starts) != len(needs.starts):
            raise InputError("guess", "must have the visits of the needs")
    _check_prices(store, prices, needs.steps)
    _check_room(store, policy, prices)


def _seconds(prices: Prices, n: int) -> F8:
    """[n, 3], nothing left to move."""
    return np.column_stack([prices.load_s, np.zeros(n) if prices.read_s is None else prices.read_s, np.zeros(n)])


def _table(values: F8) -> F8:
    return np.array(np.atleast_2d(values), np.float64, order="C")


def _rules(policy: OffloadPolicy) -> I8:
    """In the order of the columns ADMIT … ORDER."""
    return np.array(
        [
            policy.admit,
            EVICTS.index(policy.evict),
            PREFETCHES.index(policy.prefetch),
            policy.window,
            policy.most,
            policy.wraps,
            policy.demote,
            MISSES.index(policy.miss),
            col.EACH if policy.order == "each" else col.ALL,
        ],
        np.int64,
    )


def _objects(store: OffloadStore, needs: Needs) -> I8:
    """[n, 20], nothing anywhere and nothing known but when each is needed first."""
    found = np.full((len(store.object_layer), 20), col.NONE, np.int64)
    found[:, col.LAYER], found[:, col.BYTES] = store.object_layer, store.object_bytes
    found[:, [col.PHASE, col.URGENCY, col.USES, col.LOADED, col.FRESH, col.LOG]] = 0
    found[:, col.NEXT] = len(needs.starts) - 1
    visit = np.repeat(np.arange(len(needs.starts) - 1), np.diff(needs.starts))
    np.minimum.at(found[:, col.NEXT], needs.objects, visit)
    return found


def _pools(store: OffloadStore) -> I8:
    """[pools + 2, 4]: the pools, staging, host memory."""
    host = col.UNBOUNDED if store.host_bytes is None else store.host_bytes
    room = np.concatenate([store.pool_bytes, [store.staging_bytes, host]])
    found = np.full((len(room), 4), col.NONE, np.int64)
    found[:, col.CAPACITY], found[:, col.USED] = room, 0
    return found


def _place(a: Arrays, store: OffloadStore, resident: Bools | None, in_host: Bools | None) -> None:
    """Put what is there at the start into its rooms."""
    n, host = len(store.object_layer), len(a.pool_i) - 1
    if store.host_bytes is None:
        if in_host is not None:
            raise InputError("in_host", "is for stores whose host memory is limited")
        a.object_i[:, col.HOST], in_host = host, np.zeros(n, np.bool_)
    elif in_host is None:
        in_host = np.cumsum(store.object_bytes) <= store.host_bytes
    for name, held in (("resident", resident), ("in_host", in_host)):
        if held is not None and np.shape(held) != (n,):
            raise InputError(name, f"must say of each of {n} objects whether it is there")
    for item in np.flatnonzero(in_host).tolist():
        _settle(a, item, host, col.HOST, "host memory")
    for item in np.flatnonzero(resident if resident is not None else np.zeros(n, np.bool_)).tolist():
        pool = int(store.pool[store.object_layer[item]])
        _settle(a, item, pool, col.POOL, f"pool {pool}")


def _settle(a: Arrays, item: int, pool: int, where: int, name: str) -> None:
    if a.pool_i[pool, col.USED] + a.object_i[item, col.BYTES] > a.pool_i[pool, col.CAPACITY]:
        raise InputError(f"object {item}", f"is to be in {name} at the start, which is full")
    newest = a.pool_i[pool, col.NEWEST]
    a.object_i[item, where : where + 3] = pool, newest, col.NONE
    if newest == col.NONE:
        a.pool_i[pool, col.OLDEST] = item
    else:
        a.object_i[newest, where + 2] = item
    a.pool_i[pool, col.NEWEST] = item
    a.pool_i[pool, col.USED] += a.object_i[item, col.BYTES]


def _check_needs(store: OffloadStore, needs: Needs, name: str) -> None:
    """Each object in a visit of its layer, with tokens."""
    starts, objects = needs.starts, needs.objects
    visits = len(starts) - 1
    if needs.layers != store.layers or visits < 0 or visits % store.layers:
        raise InputError(name, f"must have whole steps of {store.layers} layers")
    if starts[0] != 0 or starts[-1] != len(objects) or (np.diff(starts) < 0).any() or len(needs.tokens) != len(objects):
        raise InputError(name, "must have starts that ascend from 0 to the number of objects")
    visit = np.repeat(np.arange(visits), np.diff(starts))
    if len(objects) and (objects.min() < 0 or objects.max() >= len(store.object_layer) or needs.tokens.min() < 1):
        raise InputError(name, "must name objects of the store, each with at least one token")
    light = np.full(len(objects), -1) if needs.light is None else needs.light
    if len(light) != len(objects) or light.min(initial=-1) < -1 or light.max(initial=-1) >= len(store.object_layer):
        raise InputError(name, "must name a light copy of the store, or -1, for each object")
    if (store.object_layer[objects] != visit % store.layers).any():
        raise InputError(name, "must name objects of the visit's layer")
    if ((light >= 0) & (store.object_layer[light] != visit % store.layers)).any():
        raise InputError(name, "must have a light copy in the visit's layer")
    if ((np.diff(objects) <= 0) & (np.diff(visit) == 0)).any():  # in no order, where twice is harder to see
        order = np.lexsort((objects, visit))
        objects, visit = objects[order], visit[order]
    if ((np.diff(objects) == 0) & (np.diff(visit) == 0)).any():
        raise InputError(name, "must name an object once in a visit")


def _check_prices(store: OffloadStore, prices: Prices, steps: int) -> None:
    n, layers = len(store.object_layer), store.layers
    tables = {"expert_s": prices.expert_s, "cpu_s": prices.cpu_s}
    for name, table in tables.items():
        if table is not None and (np.ndim(table) != 2 or len(table) not in (1, layers) or not table.shape[1]):
            raise InputError(name, f"must be [1 or {layers} layers, tokens]")
    if np.ndim(prices.dense_s) != 2 or prices.dense_s.shape[1] != layers or len(prices.dense_s) not in (1, steps):
        raise InputError("dense_s", f"must be [1 or {steps} steps, {layers} layers]")
    if np.size(prices.step_s) not in (1, steps):
        raise InputError("step_s", f"must be one number or {steps}")
    for name, each in (("load_s", prices.load_s), ("read_s", prices.read_s)):
        if each is not None and np.shape(each) != (n,):
            raise InputError(name, f"must have a number for each of {n} objects")
    if store.host_bytes is not None and prices.read_s is None:
        raise InputError("read_s", "is needed where host memory does not hold all objects")


def _check_room(store: OffloadStore, policy: OffloadPolicy, prices: Prices) -> None:
    """Every object that may be loaded has a room that is large enough for it."""
    pool = store.pool_bytes[store.pool][store.object_layer] if policy.admit else np.zeros(1, np.int64)
    room = np.maximum(pool, store.staging_bytes)
    if policy.miss != "load" and prices.cpu_s is None:
        raise InputError(policy.name, "computes on the CPU and is given no cpu_s")
    if policy.miss == "cpu" and store.host_bytes is None:
        return
    if (store.object_bytes > room).any():
        item = int(np.flatnonzero(store.object_bytes > room)[0])
        raise InputError(f"object {item}", "fits into no room that it may be loaded to", "more slots, or staging")
