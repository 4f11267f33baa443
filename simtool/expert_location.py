"""Expert placements as JSON: the map from slots to experts that SGLang takes (`--init-expert-location FILE.json`).

The file has one key, `physical_to_logical_map`: for each layer the expert of each slot, GPU by GPU. SGLang hands the
keys of the file on as arguments, so that there may be no other.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from simtool.errors import InputError
from simtool.files import output_file, read_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MAX_BYTES = 2**26
_KEY = "physical_to_logical_map"
_HINT = f'{{"{_KEY}": [[expert of slot 0, …], …]}}, as `simtool experts place --out FILE` writes it'
_MOST = 2**14


def write_expert_location(phy2log: NDArray[np.int64], path: Path) -> None:
    """Write [layers, slots] to `path`, whole or not at all."""
    with output_file(path) as building:
        building.write_text(json.dumps({_KEY: phy2log.tolist()}) + "\n", encoding="utf-8")


def read_expert_location(path: Path) -> NDArray[np.int64]:
    """[layers, slots] from such a file. Raises InputError for anything else."""
    import numpy as np

    text = read_text(path, kind="placement file", max_bytes=_MAX_BYTES)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"is not JSON: {error}", _HINT) from error
    rows = document.get(_KEY) if isinstance(document, dict) else None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) and row for row in rows):
        raise InputError(path, f"has no list of layers {_KEY}", _HINT)
    if len({len(row) for row in rows}) > 1:
        raise InputError(path, "has layers with unlike numbers of slots", _HINT)
    if not all(type(expert) is int and 0 <= expert < _MOST for row in rows for expert in row):
        raise InputError(path, f"names experts that are no whole numbers from 0 to {_MOST - 1}", _HINT)
    return np.array(rows, np.int64)


def with_other_layers(
    phy2log: NDArray[np.int64], layers: tuple[int, ...], experts: int, count: int
) -> NDArray[np.int64]:
    """A map of all `count` layers of a model: the planned ones at their numbers, experts in turn in the others.

    SGLang wants a row for every hidden layer, dense ones included.
    """
    import numpy as np

    if layers[-1] >= count:
        raise InputError(f"{count} layers", f"leave out layer {layers[-1]} of the loads", "give all of the model's")
    every = np.tile(np.arange(phy2log.shape[1]) % experts, (count, 1))
    every[list(layers)] = phy2log
    return every
