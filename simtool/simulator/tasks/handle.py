"""What the loop takes: one pointer to a struct of arrays where it is compiled, as in simtool/simulator/handle.py."""

from __future__ import annotations

from typing import Any, cast

from simtool.simulator.jit import COMPILED, jit_entry
from simtool.simulator.tasks.arrays import Arrays

if COMPILED:
    from numba import types
    from numba.experimental import structref

    from simtool.simulator.struct_fields import struct_fields

    TABLES = ["task_i", "task_f", "entry_i", "entry_f", "room_i", "room_f", "change_f", "interference", "segments"]

    @structref.register
    class ArraysType(types.StructRef):  # type: ignore[misc]
        """The struct's numba type."""

    class ArraysStruct(structref.StructRefProxy):  # type: ignore[misc]
        """The struct as Python holds it: opaque, to be handed to the loop."""

    structref.define_boxing(ArraysType, ArraysStruct)

    ARRAYS_TYPE = ArraysType(struct_fields(Arrays, {2: TABLES}, usual=1))
    ARRAYS_TYPE.name = "simtool.Arrays"  # the default spells out every field in every symbol

    @jit_entry
    def make_arrays_struct(arrays: Arrays) -> Any:
        """A struct that refers to the same arrays."""
        s = structref.new(ARRAYS_TYPE)
        s.task_i = arrays.task_i
        s.task_f = arrays.task_f
        s.entry_i = arrays.entry_i
        s.entry_f = arrays.entry_f
        s.room_i = arrays.room_i
        s.room_f = arrays.room_f
        s.successors = arrays.successors
        s.store_i = arrays.store_i
        s.store_f = arrays.store_f
        s.heap = arrays.heap
        s.part = arrays.part
        s.settled = arrays.settled
        s.capped = arrays.capped
        s.open = arrays.open
        s.dirty = arrays.dirty
        s.change_i = arrays.change_i
        s.change_f = arrays.change_f
        s.interference = arrays.interference
        s.segments = arrays.segments
        s.counters = arrays.counters
        return s


def handle(arrays: Arrays) -> Arrays:
    """What the loop's functions take as `a`: the struct when compiled, the named tuple itself when interpreted."""
    return cast(Arrays, make_arrays_struct(arrays)) if COMPILED else arrays
