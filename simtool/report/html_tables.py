"""Tables as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def tag(kind: str) -> str:
    """A small rounded label, coloured by its first word."""
    word = kind.split()[0].rstrip(":,;") if kind else ""
    return f'<span class="tag {escape(word)}">{escape(kind)}</span>'


def pairs(rows: Iterable[tuple[str, str]]) -> str:
    """A table of names and texts."""
    cells = "".join(f"<tr><td>{escape(name)}</td><td>{escape(text)}</td></tr>" for name, text in rows)
    return f"<table>{cells}</table>"


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], classes: Sequence[str], texts: Sequence[int] = (0,)
) -> str:
    """A table whose columns are numbers, but for `texts`. classes: one a row."""

    def line(cells: Sequence[str], name: str) -> str:
        return "".join(
            f"<{name}{'' if place in texts else ' class=' + chr(34) + 'n' + chr(34)}>{escape(cell)}</{name}>"
            for place, cell in enumerate(cells)
        )

    body = "".join(f'<tr class="{name}">{line(row, "td")}</tr>' for row, name in zip(rows, classes, strict=True))
    return f"<table><tr>{line(heads, 'th')}</tr>{body}</table>"
