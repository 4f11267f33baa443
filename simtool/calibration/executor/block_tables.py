"""Physical KV blocks of one row: the scheduler counts blocks, this says which ones they are.

After each decision the tables follow the scheduler's state; that their free blocks are as many as the scheduler's is
checked every time. A node is a block of a shared prefix or, beyond those, a request's private tail that stayed cached.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simtool.errors import SimtoolError
from simtool.simulator import state as st
from simtool.simulator.state import State

FRESH = -1  # a block that is to be taken from the free ones, when all that leave have left


class Block:
    """One physical block, shared by every table that holds it."""

    __slots__ = ("index",)

    def __init__(self) -> None:
        self.index = FRESH


class BlockTables:
    """The block table of each running request of a row, and the cached blocks of nodes that nobody holds."""

    def __init__(self, state: State, group: int, row: int) -> None:
        config = state.config[group]
        self.row = row
        self.size = int(config[st.BLOCK_SIZE])
        self.caching = bool(config[st.PREFIX])
        self.node_size = int(config[st.PREFIX_BLOCKS])
        self.tail0 = state.node_refs.shape[1]  # request i's private tail is node tail0 + i
        self.free = list(range(int(config[st.NUM_BLOCKS]) - 1, -1, -1))
        self.nodes: dict[int, list[Block]] = {}
        self.tables: dict[int, list[Block]] = {}
        self.held: dict[int, int] = {}  # prefix nodes at the head of a table, also of requests that have left
        self.rows: dict[int, NDArray[np.int64]] = {}

    def leave(self, state: State, running: set[int]) -> None:
        """Requests that no longer run (finished, preempted) give their blocks back; cached ones go to their nodes."""
        for request in [req for req in self.tables if req not in running]:
            table = self.tables.pop(request)
            self.rows.pop(request, None)
            kept = 0
            if self.caching:
                held = int(state.req_i[request, st.HELD])
                self._publish(state, request, table, held)
                self.held[request] = held
                kept = held * self.node_size
                tail = int(state.node_blocks[self.row, self.tail0 + request])
                if tail:
                    self.nodes[self.tail0 + request] = table[kept : kept + tail]
                    kept += tail
            self._release(table[kept:])

    def follow(
        self, state: State, running: set[int], chunks: Sequence[tuple[int, int]], decodes: Sequence[tuple[int, int]]
    ) -> None:
        """Catch up with a scheduled step. chunks, decodes: (request, context) of each, in their order."""
        self.leave(state, running)
        admitted = {req for req, _ in chunks if req not in self.tables}
        tails = {req: self.nodes.pop(self.tail0 + req, []) for req in admitted}
        self._evict(state)
        for request, context in chunks:
            if request in admitted:
                self.tables[request] = self._found(state, request, context, tails[request])
            self._grow(request, int(state.req_i[request, st.BLOCKS]))
            if self.caching:
                held = int(state.req_i[request, st.HELD])
                self._publish(state, request, self.tables[request], held)
                self.held[request] = held
        for request, context in decodes:
            self._grow(request, -(-(context + 1) // self.size))
        self._take_fresh()
        self.check(state)

    def check(self, state: State) -> None:
        """The scheduler's count of blocks without content is ours: what it decides on is what is there."""
        plain = int(state.row_i[self.row, st.PLAIN])
        if plain != len(self.free):
            raise SimtoolError(f"row {self.row}: the scheduler counts {plain} empty KV blocks, {len(self.free)} are")

    def table(self, request: int) -> NDArray[np.int64]:
        """int64[blocks] physical blocks of a running request, in the order of its tokens."""
        blocks = self.tables[request]
        row = self.rows.get(request)
        if row is None or len(row) != len(blocks):
            row = self.rows[request] = np.array([block.index for block in blocks], np.int64)
        return row

    def _found(self, state: State, request: int, context: int, tail: list[Block]) -> list[Block]:
        """Blocks that hold the first `context` tokens already: of prefix nodes, then the request's own tail.

        Where all of a prompt is cached, its last block is computed again in its place: the last token has to be.
        """
        table: list[Block] = []
        hits, span = 0, self.node_size * self.size
        nodes = self._nodes_of(state, request)
        total = int(state.req_i[request, st.INPUT] + state.req_i[request, st.GENERATED])
        reach = total if context + self.size == total else context
        while hits < len(nodes) and hits * span < reach and nodes[hits] in self.nodes:
            table += self.nodes[nodes[hits]]
            hits += 1
        own = context // self.size - len(table) if hits == self.held.get(request, 0) else 0
        self._release(tail[max(own, 0) :])
        return table + tail[: max(own, 0)]

    def _publish(self, state: State, request: int, table: list[Block], held: int) -> None:
        """The blocks of the first `held` prefix nodes are the nodes' from now on."""
        for j, node in enumerate(self._nodes_of(state, request)[:held]):
            blocks = table[j * self.node_size : (j + 1) * self.node_size]
            before = self.nodes.get(node, blocks)
            if before is not blocks and before[0] is not blocks[0]:
                self._release(before)  # evicted and computed again in one step
            self.nodes[node] = blocks

    def _evict(self, state: State) -> None:
        """Nodes lose what the scheduler took from them, last block first."""
        if not self.caching:
            return
        for node, blocks in list(self.nodes.items()):
            left = int(state.node_blocks[self.row, node])
            if left < len(blocks):
                self._release(blocks[left:])
                self.nodes[node] = blocks[:left]
                if not left:
                    del self.nodes[node]

    def _grow(self, request: int, blocks: int) -> None:
        table = self.tables[request]
        while len(table) < blocks:
            table.append(Block())

    def _take_fresh(self) -> None:
        """Give every new block its place; all that is given back has been given back."""
        for request, table in self.tables.items():
            if table and table[-1].index != FRESH and request in self.rows and len(self.rows[request]) == len(table):
                continue
            for block in table:
                if block.index == FRESH:
                    if not self.free:
                        raise SimtoolError(f"row {self.row}: no KV block is free for request {request}")
                    block.index = self.free.pop()
            self.rows.pop(request, None)

    def _release(self, blocks: Sequence[Block]) -> None:
        self.free += [block.index for block in blocks if block.index != FRESH]

    def _nodes_of(self, state: State, request: int) -> list[int]:
        if not self.caching or len(state.prefix_offsets) < 2:
            return []
        first, last = state.prefix_offsets[request : request + 2]
        return [int(node) for node in state.prefix_ids[first:last]]
