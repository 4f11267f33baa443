"""Counts of expert choices and of pairs of choices in two layers, as the OLMoE authors' script leaves them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError

_COUNTS, _PAIRS = "expert_counts.csv", "expert_pair_counts.csv"
_KEYS = {
    _COUNTS: ("model", "domain", "selection", "entry", "layer", "expert", "count"),
    _PAIRS: ("model", "domain", "layer_from", "layer_to", "expert_from", "expert_to", "count"),
}
_MOST_EXPERTS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingCounts:
    """Of one model on text of one domain. layers: the model's numbers of those that were counted.

    chosen: float64[layers, experts], tokens of each expert, all ranks. pairs: float64[layers - 1, experts, experts],
    expert of a layer and of the next counted one, chosen at the same rank. tokens: counted tokens.
    """

    model: str
    domain: str
    layers: tuple[int, ...]
    tokens: int
    top_k: int
    chosen: NDArray[np.float64]
    pairs: NDArray[np.float64]


def read_routing_counts(folder: Path) -> list[RoutingCounts]:
    """Every model and domain of expert_counts.csv and expert_pair_counts.csv. Raises InputError for what is wrong."""
    counts = list(_rows(folder / _COUNTS))
    pairs = list(_rows(folder / _PAIRS))
    found = []
    for model in dict.fromkeys(row["model"] for row in counts):
        own = [row for row in counts if row["model"] == model]
        experts = 1 + max(_whole(row, "expert", folder / _COUNTS, _MOST_EXPERTS) for row in own)
        for domain in dict.fromkeys(row["domain"] for row in own):
            here = [row for row in own if row["domain"] == domain]
            there = [row for row in pairs if (row["model"], row["domain"]) == (model, domain)]
            found.append(_counted(here, there, experts, folder))
    return found


def pooled(parts: Sequence[RoutingCounts], domain: str) -> RoutingCounts:
    """Counts of several domains of one model together."""
    first = parts[0]
    return RoutingCounts(
        model=first.model,
        domain=domain,
        layers=first.layers,
        tokens=sum(part.tokens for part in parts),
        top_k=first.top_k,
        chosen=np.sum([part.chosen for part in parts], axis=0),
        pairs=np.sum([part.pairs for part in parts], axis=0),
    )


def _counted(
    counts: Sequence[dict[str, str]], pairs: Sequence[dict[str, str]], experts: int, folder: Path
) -> RoutingCounts:
    """The tables of one model and domain."""
    path = folder / _COUNTS
    layers = tuple(sorted({_whole(row, "layer", path) for row in counts}))
    tables = {name: np.zeros((len(layers), experts)) for name in ("topk", "top1")}
    for row in counts:
        if row["selection"] not in tables:
            raise InputError(path, f"selection is {row['selection']!r}", "topk or top1")
        place = layers.index(_whole(row, "layer", path)), _whole(row, "expert", path, experts - 1)
        tables[row["selection"]][place] = _whole(row, "count", path)
    joint = np.zeros((len(layers) - 1, experts, experts))
    for row in pairs:
        ends = [_whole(row, key, folder / _PAIRS) for key in ("layer_from", "layer_to")]
        if ends[0] not in layers[:-1] or layers[layers.index(ends[0]) + 1] != ends[1]:
            raise InputError(folder / _PAIRS, f"layers {ends[0]} and {ends[1]} are not neighbours of the counts")
        one, other = (_whole(row, key, folder / _PAIRS, experts - 1) for key in ("expert_from", "expert_to"))
        joint[layers.index(ends[0]), one, other] = _whole(row, "count", folder / _PAIRS)
    tokens, chosen = int(tables["top1"][0].sum()), tables["topk"]
    if not tokens or (chosen.sum(axis=1) % tokens).any() or len(set(chosen.sum(axis=1).tolist())) > 1:
        raise InputError(path, "the counts of its layers are not of the same tokens")
    if not (np.array_equal(joint.sum(axis=2), chosen[:-1]) and np.array_equal(joint.sum(axis=1), chosen[1:])):
        raise InputError(folder / _PAIRS, "its sums are not the counts of the layers")
    return RoutingCounts(
        model=counts[0]["model"],
        domain=counts[0]["domain"],
        layers=layers,
        tokens=tokens,
        top_k=int(chosen[0].sum()) // tokens,
        chosen=chosen,
        pairs=joint,
    )


def _rows(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a table that has the keys that it should."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != _KEYS[path.name]:
                raise InputError(path, f"its columns are not {', '.join(_KEYS[path.name])}")
            yield from reader
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}", "give the folder of the counts") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(path, f"is no CSV: {error}") from error


def _whole(row: dict[str, str], key: str, path: Path, most: int = 2**53) -> int:
    text = row[key]
    if text is None or not text.isdecimal() or int(text) > most:
        raise InputError(path, f"{key} is {text!r}", f"a whole number from 0 to {most:,}")
    return int(text)
