"""Numba types of the arrays that a named tuple holds, for the structs that compiled code gets a pointer to."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any


def struct_fields(arrays: Any, dimensions: Mapping[int, Collection[str]], usual: int) -> list[tuple[str, Any]]:
    """(name, type) of each field of the named tuple class `arrays`: elements by its annotation (I4, I8, F8).

    dimensions: number of dimensions → fields that have it; the others have `usual`.
    """
    from numba import types

    elements = {"I4": types.int32, "I8": types.int64, "F8": types.float64}
    many = {name: number for number, names in dimensions.items() for name in names}
    return [
        (name, types.Array(elements[annotation.__forward_arg__], many.get(name, usual), "C"))
        for name, annotation in arrays.__annotations__.items()
    ]
