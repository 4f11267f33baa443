"""The KV block pool of one row: counts for private blocks, an LRU list of nodes for shared prefixes (vLLM's rules).

Free blocks are *plain* (no content) or belong to a cached node that nobody holds and that may be evicted.
A node is one prefix block of the workload (several KV blocks), or a request's private tail after it has left.
"""

from __future__ import annotations

from simtool.simulator.jit import jit
from simtool.simulator.state import (
    BLOCK_SIZE,
    BLOCKS,
    FREE,
    GENERATED,
    HELD,
    INPUT,
    LRU_HEAD,
    LRU_TAIL,
    NONE,
    PLAIN,
    PREFIX,
    PREFIX_BLOCKS,
    State,
)


@jit
def prompt_tokens(s: State, req: int) -> int:
    """Tokens to prefill: the prompt and, after a preemption, what was already generated."""
    return int(s.req_i[req, INPUT] + s.req_i[req, GENERATED])


@jit
def lru_remove(s: State, row: int, node: int) -> None:
    """Take a node out of the free list: somebody holds it again, or it is evicted."""
    before, after = s.node_prev[row, node], s.node_next[row, node]
    if before == NONE:
        s.row_i[row, LRU_HEAD] = after
    else:
        s.node_next[row, before] = after
    if after == NONE:
        s.row_i[row, LRU_TAIL] = before
    else:
        s.node_prev[row, after] = before
    s.row_i[row, FREE] -= s.node_blocks[row, node]


@jit
def lru_append(s: State, row: int, node: int) -> None:
    """Nobody holds the node any more: it stays cached until its blocks are needed."""
    tail = s.row_i[row, LRU_TAIL]
    s.node_prev[row, node] = tail
    s.node_next[row, node] = NONE
    if tail == NONE:
        s.row_i[row, LRU_HEAD] = node
    else:
        s.node_next[row, tail] = node
    s.row_i[row, LRU_TAIL] = node
    s.row_i[row, FREE] += s.node_blocks[row, node]


@jit
def take_blocks(s: State, row: int, count: int) -> None:
    """Take `count` blocks (the caller has checked FREE), evicting the least recently used nodes if need be."""
    while s.row_i[row, PLAIN] < count:
        node = s.row_i[row, LRU_HEAD]
        blocks = s.node_blocks[row, node]
        short = count - s.row_i[row, PLAIN]
        if node >= s.node_refs.shape[1] and blocks > short:
            s.node_blocks[row, node] -= short  # a private tail goes block by block, last block first
            s.row_i[row, PLAIN] += short
        else:
            lru_remove(s, row, node)
            s.row_i[row, FREE] += blocks
            s.node_blocks[row, node] = 0
            s.row_i[row, PLAIN] += blocks
    s.row_i[row, PLAIN] -= count
    s.row_i[row, FREE] -= count


@jit
def cached_nodes(s: State, group: int, row: int, req: int) -> int:
    """Leading prefix nodes of the request's prompt that are resident."""
    if s.config[group, PREFIX] == 0 or s.prefix_offsets.shape[0] < 2:
        return 0
    first = s.prefix_offsets[req]
    node_tokens = s.config[group, PREFIX_BLOCKS] * s.config[group, BLOCK_SIZE]
    limit = min(s.prefix_offsets[req + 1] - first, prompt_tokens(s, req) // node_tokens)
    count = 0
    while count < limit and s.node_blocks[row, s.prefix_ids[first + count]] > 0:
        count += 1
    return count


@jit
def evictable_hits(s: State, group: int, row: int, req: int, nodes: int) -> int:
    """Free blocks that holding the hits would take out of the free list."""
    if s.config[group, PREFIX] == 0:
        return 0
    blocks = s.node_blocks[row, s.node_refs.shape[1] + req]
    for j in range(nodes):
        node = s.prefix_ids[s.prefix_offsets[req] + j]
        if s.node_refs[row, node] == 0:
            blocks += s.node_blocks[row, node]
    return int(blocks)


@jit
def cached_blocks(s: State, group: int, row: int, req: int, nodes: int) -> int:
    """KV blocks that need no computing: the hit nodes and, right behind them, the request's own tail."""
    if s.config[group, PREFIX] == 0:
        return 0
    blocks = nodes * s.config[group, PREFIX_BLOCKS]
    if nodes == s.req_i[req, HELD]:
        blocks += s.node_blocks[row, s.node_refs.shape[1] + req]
    return int(blocks)


@jit
def hold_cached(s: State, group: int, row: int, req: int, nodes: int) -> None:
    """Hold `nodes` cached nodes and what is left of the request's own private tail."""
    first = s.prefix_offsets[req] if nodes > 0 else 0
    for j in range(nodes):
        node = s.prefix_ids[first + j]
        if s.node_refs[row, node] == 0:
            lru_remove(s, row, node)
        s.node_refs[row, node] += 1
    blocks = nodes * s.config[group, PREFIX_BLOCKS]
    if s.config[group, PREFIX] == 1:
        own = s.node_refs.shape[1] + req
        tail = s.node_blocks[row, own]
        if tail > 0:
            lru_remove(s, row, own)
            s.node_blocks[row, own] = 0
            if nodes == s.req_i[req, HELD]:
                blocks += tail
            else:  # a hole in front of the tail: its content is of no use
                s.row_i[row, PLAIN] += tail
                s.row_i[row, FREE] += tail
    s.req_i[req, HELD] = nodes
    s.req_i[req, BLOCKS] = blocks


@jit
def publish_nodes(s: State, group: int, row: int, req: int, tokens: int) -> None:
    """Prefix blocks filled by the first `tokens` tokens become cached nodes, held by the request."""
    if s.config[group, PREFIX] == 0 or s.prefix_offsets.shape[0] < 2:
        return
    first, size = s.prefix_offsets[req], s.config[group, PREFIX_BLOCKS]
    limit = min(s.prefix_offsets[req + 1] - first, tokens // (size * s.config[group, BLOCK_SIZE]))
    held = s.req_i[req, HELD]
    while held < limit:
        node = s.prefix_ids[first + held]
        if s.node_blocks[row, node] > 0:
            break  # another request computed the same block meanwhile: ours stays private
        s.node_blocks[row, node] = size
        s.node_refs[row, node] = 1
        held += 1
    s.req_i[req, HELD] = held


@jit
def free_blocks(s: State, group: int, row: int, req: int, computed: int) -> None:
    """Give back all blocks of a request with `computed` tokens in its KV; cached content stays evictable."""
    blocks = s.req_i[req, BLOCKS]
    if s.config[group, PREFIX] == 0:
        s.row_i[row, PLAIN] += blocks
        s.row_i[row, FREE] += blocks
        s.req_i[req, BLOCKS] = 0
        return
    publish_nodes(s, group, row, req, computed)
    held = s.req_i[req, HELD]
    private = blocks - held * s.config[group, PREFIX_BLOCKS]
    full = min(private, computed // s.config[group, BLOCK_SIZE] - held * s.config[group, PREFIX_BLOCKS])
    full = max(full, 0)
    s.row_i[row, PLAIN] += private - full
    s.row_i[row, FREE] += private - full
    own = s.node_refs.shape[1] + req
    s.node_blocks[row, own] = full
    if full > 0:
        lru_append(s, row, own)
    for j in range(held - 1, -1, -1):
        node = s.prefix_ids[s.prefix_offsets[req] + j]
        s.node_refs[row, node] -= 1
        if s.node_refs[row, node] == 0:
            lru_append(s, row, node)
    s.req_i[req, BLOCKS] = 0
