"""The terminal: data on stdout, everything else on stderr, progress only where someone watches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from simtool.errors import InfeasibleError, InputError, SimtoolError

if TYPE_CHECKING:
    from rich.console import Console

_PIPE_WIDTH = 110  # a pipe has no width of its own


def print_json(text: str) -> None:
    """One JSON document on stdout, without colour or wrapping."""
    sys.stdout.write(text.rstrip("\n") + "\n")


def print_text(text: str) -> None:
    """Plain text on stdout."""
    sys.stdout.write(text.rstrip("\n") + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> None:
    """A table on stdout; the first `left` columns are text, the others are numbers."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(Text(column), justify="left" if number < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console(sys.stdout).print(table)


def note(text: str) -> None:
    """A remark on stderr."""
    sys.stderr.write(text.rstrip("\n") + "\n")


def print_error(error: SimtoolError) -> None:
    """`ERROR` and the hint on stderr, as every failure of a command is told."""
    from rich.text import Text

    line = Text("ERROR", style="bold red")
    match error:
        case InputError():
            line.append(f" {error.value}: {error.rule}", style="not bold default")
            hint = error.hint
        case InfeasibleError():
            line.append(f" infeasible: {error.constraint} binds: {error.detail}", style="not bold default")
            hint = error.relaxation
        case _:
            line.append(f" {error}", style="not bold default")
            hint = ""
    err = console(sys.stderr)
    err.print(line, soft_wrap=True)
    if hint:
        err.print(Text("hint", style="bold cyan").append(f"  {hint}", style="not bold default"), soft_wrap=True)


@contextmanager
def progress(label: str) -> Iterator[Callable[[str], None]]:
    """A spinner on stderr while the body runs, which may say how far it is; silent where stderr is no terminal."""
    err = console(sys.stderr)
    if not err.is_terminal:
        yield lambda _: None
        return
    with err.status(label) as status:
        yield lambda text: status.update(f"{label}: {text}")


def console(stream: TextIO) -> Console:
    """rich on one stream; rich itself obeys NO_COLOR and whether the stream is a terminal."""
    from rich.console import Console

    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(file=stream, width=width, highlight=False)
