"""How the kernel sees the State: compiled code gets one pointer to a struct of arrays, not forty arrays a call.

Passing the named tuple itself costs numba 100 s of compilation and a microsecond a call; the struct costs neither.
"""

from __future__ import annotations

from typing import Any, cast

from simtool.simulator.jit import COMPILED, jit_entry
from simtool.simulator.state import State

if COMPILED:
    from numba import types
    from numba.experimental import structref

    from simtool.simulator.struct_fields import struct_fields

    DIMENSIONS = {
        3: (
            "lane_i",
            "phase",
            "finish_heap",
            "join_s",
            "join_n",
            "flight_i",
            "flight_f",
            "token_s",
            "shared_s",
            "leap_s",
        ),
        4: ("chunks", "decode_s", "prefill_rate"),
        5: ("gain",),
        1: ("prefix_ids", "prefix_offsets", "itl", "record_n"),
    }

    @structref.register
    class StateType(types.StructRef):  # type: ignore[misc]
        """The struct's numba type."""

    class StateStruct(structref.StructRefProxy):  # type: ignore[misc]
        """The struct as Python holds it: opaque, to be handed to the kernel."""

    structref.define_boxing(StateType, StateStruct)

    STATE_TYPE = StateType(struct_fields(State, DIMENSIONS, usual=2))
    STATE_TYPE.name = "simtool.State"  # the default spells out every field in every symbol

    @jit_entry
    def make_struct(arrays: State) -> Any:
        """A struct that refers to the same arrays."""
        s = structref.new(STATE_TYPE)
        s.req_i = arrays.req_i
        s.req_f = arrays.req_f
        s.row_i = arrays.row_i
        s.lane_i = arrays.lane_i
        s.lane_f = arrays.lane_f
        s.phase = arrays.phase
        s.finish_heap = arrays.finish_heap
        s.join_s = arrays.join_s
        s.join_n = arrays.join_n
        s.chunks = arrays.chunks
        s.group_i = arrays.group_i
        s.group_f = arrays.group_f
        s.flight_i = arrays.flight_i
        s.flight_f = arrays.flight_f
        s.lane_ready = arrays.lane_ready
        s.stage_free = arrays.stage_free
        s.config = arrays.config
        s.prefix_ids = arrays.prefix_ids
        s.prefix_offsets = arrays.prefix_offsets
        s.node_refs = arrays.node_refs
        s.node_blocks = arrays.node_blocks
        s.node_prev = arrays.node_prev
        s.node_next = arrays.node_next
        s.itl = arrays.itl
        s.records = arrays.records
        s.record_n = arrays.record_n
        s.token_s = arrays.token_s
        s.shared_s = arrays.shared_s
        s.decode_s = arrays.decode_s
        s.leap_s = arrays.leap_s
        s.gain = arrays.gain
        s.knots = arrays.knots
        s.prefill_rate = arrays.prefill_rate
        s.head_s = arrays.head_s
        s.host_s = arrays.host_s
        s.p2p_s = arrays.p2p_s
        s.token_j = arrays.token_j
        s.scalars = arrays.scalars
        return s


def handle(state: State) -> State:
    """What kernel functions take as `s`: the struct when compiled, the named tuple itself when interpreted."""
    return cast(State, make_struct(state)) if COMPILED else state
