"""What the walk takes: one pointer to a struct of arrays where it is compiled, as in simtool/simulator/handle.py."""

from __future__ import annotations

from typing import Any, cast

from simtool.simulator.jit import COMPILED, jit_entry
from simtool.simulator.offload.arrays import Arrays

if COMPILED:
    from numba import types
    from numba.experimental import structref

    from simtool.simulator.struct_fields import struct_fields

    TABLES = [
        "object_i",
        "object_f",
        "pool_i",
        "queue",
        "link_f",
        "order_i",
        "dense_s",
        "expert_s",
        "cpu_s",
        "layer_count",
        "step_count",
        "layer_s",
        "step_out",
        "log_i",
        "log_f",
    ]

    @structref.register
    class ArraysType(types.StructRef):  # type: ignore[misc]
        """The struct's numba type."""

    class ArraysStruct(structref.StructRefProxy):  # type: ignore[misc]
        """The struct as Python holds it: opaque, to be handed to the walk."""

    structref.define_boxing(ArraysType, ArraysStruct)

    ARRAYS_TYPE = ArraysType(struct_fields(Arrays, {2: TABLES}, usual=1))
    ARRAYS_TYPE.name = "simtool.OffloadArrays"  # the default spells out every field in every symbol

    @jit_entry
    def make_offload_struct(arrays: Arrays) -> Any:
        """A struct that refers to the same arrays."""
        s = structref.new(ARRAYS_TYPE)
        s.object_i = arrays.object_i
        s.object_f = arrays.object_f
        s.pool_i = arrays.pool_i
        s.layer_pool = arrays.layer_pool
        s.queue = arrays.queue
        s.link_f = arrays.link_f
        s.rules = arrays.rules
        s.counters = arrays.counters
        s.order_i = arrays.order_i
        s.need_start = arrays.need_start
        s.need_object = arrays.need_object
        s.need_tokens = arrays.need_tokens
        s.need_next = arrays.need_next
        s.need_light = arrays.need_light
        s.guess_start = arrays.guess_start
        s.guess_object = arrays.guess_object
        s.dense_s = arrays.dense_s
        s.expert_s = arrays.expert_s
        s.cpu_s = arrays.cpu_s
        s.step_s = arrays.step_s
        s.sync_s = arrays.sync_s
        s.layer_count = arrays.layer_count
        s.step_count = arrays.step_count
        s.layer_s = arrays.layer_s
        s.step_out = arrays.step_out
        s.log_i = arrays.log_i
        s.log_f = arrays.log_f
        return s


def handle(arrays: Arrays) -> Arrays:
    """What the walk's functions take as `a`: the struct when compiled, the named tuple itself when interpreted."""
    return cast(Arrays, make_offload_struct(arrays)) if COMPILED else arrays
