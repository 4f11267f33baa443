"""A key number as a card, with its interval where there is one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from simtool.report.wording import number


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One number. `interval` is in the same unit."""

    name: str
    value: float
    unit: str
    more: str = ""
    interval: tuple[float, float] | None = None


def cards_row(cards: Sequence[Card]) -> str:
    """The cards that have a number, the first one accented."""
    shown = [card for card in cards if not math.isnan(card.value)]
    inner = "".join(_card(card, first=place == 0) for place, card in enumerate(shown))
    return f'<div class="cards">{inner}</div>'


def _card(card: Card, *, first: bool) -> str:
    range_html = ""
    more = escape(card.more)
    if card.interval and all(math.isfinite(end) for end in card.interval):
        lower, upper = card.interval
        range_html = _range(lower, upper, card.value)
        likely = f"likely {number(lower)} – {number(upper)}"
        more = f"{likely}<br>{more}" if more else likely
    return (
        f'<div class="card{" first" if first else ""}"><div class="name">{escape(card.name)}</div>'
        f'<div class="value">{number(card.value)}<span>{escape(card.unit)}</span></div>{range_html}'
        f'<div class="more">{more}</div></div>'
    )


def _range(lower: float, upper: float, value: float) -> str:
    """The interval as a bar from 0 to 1.15 x its upper end, with a tick at the value."""
    full = 1.15 * max(upper, value) or 1.0
    left, width, tick = (100 * part / full for part in (lower, upper - lower, value))
    bar = f'<i style="left:{left:.1f}%;width:{max(width, 0.5):.1f}%"></i>'
    return f'<div class="range">{bar}<b style="left:calc({tick:.1f}% - 1px)"></b></div>'
