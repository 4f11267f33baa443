"""The bundled catalogue: models by name, with the facts of their config.json and their published sizes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedNumber:
    """A number as printed: its value, and half a unit of its last digit (the rounding it carries)."""

    value: float
    rounding: float

    @classmethod
    def from_text(cls, text: str) -> PublishedNumber:
        """ "37e9" is 37 billion give or take half a billion."""
        number = Decimal(text)
        exponent = number.as_tuple().exponent
        half_unit = 0.5 * 10.0 ** int(exponent) if number else 0.0
        return cls(value=float(number), rounding=half_unit)


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueEntry:
    """One bundled model. config holds Hugging Face keys; published_* come from `published_source` (0: not stated).

    published_includes: what the published total counts beside the decoder: "mtp", "vision".
    """

    name: str
    hf_id: str
    aliases: tuple[str, ...]
    config: Mapping[str, Any]
    published_params: PublishedNumber
    published_active_params: PublishedNumber
    published_source: str
    published_includes: tuple[str, ...] = ()


def load_catalogue() -> tuple[CatalogueEntry, ...]:
    """All bundled models, in the file's order."""
    text = (files("simtool.models") / "data" / "catalogue.json").read_text(encoding="utf-8")
    return tuple(_entry(name, item) for name, item in json.loads(text).items())


def catalogue_entry(name: str) -> CatalogueEntry | None:
    """The entry of that name, alias or Hugging Face id (case does not matter); None where there is none."""
    wanted = name.strip().lower()
    for entry in load_catalogue():
        organisation_free = entry.hf_id.lower().rpartition("/")[2]
        if wanted in (entry.name, entry.hf_id.lower(), organisation_free, *entry.aliases):
            return entry
    return None


def _entry(name: str, item: Mapping[str, Any]) -> CatalogueEntry:
    return CatalogueEntry(
        name=name,
        hf_id=item["hf_id"],
        aliases=tuple(alias.lower() for alias in item.get("aliases", ())),
        config=item["config"],
        published_params=PublishedNumber.from_text(item["params"]),
        published_active_params=PublishedNumber.from_text(item.get("active_params", "0")),
        published_source=item["published_source"],
        published_includes=tuple(item.get("includes", ())),
    )
