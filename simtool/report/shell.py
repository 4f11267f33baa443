"""The shell of a page: head, sections, panels and figures. plotly.js once, nothing fetched from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from importlib.resources import files

from plotly import graph_objects as go
from plotly.offline import get_plotlyjs

from simtool.report.wording import number


def page_html(title: str, body: str, figures: Mapping[str, str], version: str, style: str = "") -> str:
    """The whole page as HTML text. figures: what `plot` collected; style: CSS beside that of every page."""
    data = "".join(f'<script type="application/json" id="{name}">{text}</script>' for name, text in figures.items())
    static = files("simtool.report")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="generator" content="simtool"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title>"
        f"<style>{static.joinpath('page.css').read_text('utf-8')}{style}</style></head><body><main>{body}"
        f"<footer>Written by simtool {escape(version)}. This page is complete in itself and works offline."
        f"</footer></main>{data}<script>{get_plotlyjs()}</script>"
        f"<script>{static.joinpath('page.js').read_text('utf-8')}</script></body></html>\n"
    )


def section(heading: str, say: str, inner: str) -> str:
    """A heading, a sentence on what is to be seen, and the panels."""
    told = f'<p class="say">{escape(say)}</p>' if say else ""
    return f"<section><h2>{escape(heading)}</h2>{told}{inner}</section>"


def panel(inner: str, heading: str = "") -> str:
    """A framed part of a section."""
    return f'<div class="panel">{f"<h3>{escape(heading)}</h3>" if heading else ""}{inner}</div>'


def plot(figure: go.Figure, name: str, figures: dict[str, str]) -> str:
    """A place for the figure; its JSON goes to `figures`, with every `<` escaped so that no text can end the script."""
    figures[f"figure-{name}"] = figure.to_json().replace("<", "\\u003c")
    height = number(figure.layout.height or 400, 6).replace(",", "")
    return f'<div class="plot" data-figure="figure-{name}" style="height:{height}px"></div>'


def package_version() -> str:
    """The version of the installed package; empty where it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("llm-simtool")
    except PackageNotFoundError:
        return ""
