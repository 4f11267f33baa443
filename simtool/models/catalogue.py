"""The bundled catalogue: models by name, with the facts of their config.json and their published sizes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueEntry:
    """One bundled model. config holds Hugging Face keys; published_* come from `published_source` (0: not stated).

    published_scope: "total" (embeddings and LM head in), or "non_embedding" where the card counts so.
    """

    name: str
    hf_id: str
    aliases: tuple[str, ...]
    config: Mapping[str, Any]
    published_params: float
    published_active_params: float
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
        published_params=item["params"],
        published_active_params=item.get("active_params", 0.0),
        published_source=item["published_source"],
        published_includes=tuple(item.get("includes", ())),
    )
