"""Colours that read on light and dark ground alike, and the layout that all figures share."""

from __future__ import annotations

from typing import Any

ACCENT = "#14a094"
SLATE = "#6b8cae"
FAINT = "#9aa1ab"
WARM = "#e08e45"
# Okabe and Ito's palette (colour-blind safe), darkened or lightened to hold on both grounds.
CATEGORICAL = ("#14a094", "#e08e45", "#6b8cae", "#b76fb0", "#c9a227", "#5f9e5f", "#d0605e", "#8a8f98")
FAMILY = {
    "gemm": "#6b8cae",
    "moe": "#b76fb0",
    "attention_prefill": "#14a094",
    "attention_decode": "#14a094",
    "mla_prefill": "#14a094",
    "mla_decode": "#14a094",
    "recurrent": "#5f9e5f",
    "collective": "#e08e45",
    "elementwise": "#9aa1ab",
    "embedding": "#9aa1ab",
    "sampling": "#9aa1ab",
    "host": "#d0605e",
}


def layout(height: int, **more: Any) -> dict[str, Any]:
    """The keys of every figure's layout; the page's script adds fonts and colours of the reader's theme."""
    plain = {
        "template": "none",
        "height": height,
        "margin": {"l": 8, "r": 12, "t": 12, "b": 8},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"},
        "hovermode": "closest",
    }
    return plain | more


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with its title and unit, grid lines and no zero line."""
    plain = {"title": {"text": title, "standoff": 10}, "zeroline": False, "showgrid": True, "showline": True}
    return plain | more
