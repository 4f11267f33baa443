"""Command: a program, its options and its environment, and how a shell or a container writes them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from simtool.emit.option_table import OptionTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A value that only the machine knows: an environment variable, such as the first node's address.

    before, rest: what stands around it.
    """

    name: str
    rest: str = ""
    before: str = ""


Value = str | Variable
Options = list[tuple[str, tuple[Value, ...]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """words start the program (`vllm serve MODEL`), options follow, each with its values, then `tail`.

    env stands before it all.
    """

    program: str
    words: tuple[str, ...]
    options: tuple[tuple[str, tuple[Value, ...]], ...]
    env: tuple[tuple[str, str], ...] = ()
    tail: tuple[str, ...] = ()

    def checked(self, table: OptionTable) -> Command:
        """This command. Raises InputError for an option or a value that the version does not have."""
        for name, values in self.options:
            table.check(self.program, name, tuple("0" if isinstance(value, Variable) else value for value in values))
        return self

    def start(self) -> list[str]:
        """The words, for a container."""
        return [_container(word) for word in self.words]

    def arguments(self) -> list[str]:
        """What follows the words, for a container: Kubernetes fills in $(NAME)."""
        return [text for name, values in self.options for text in (name, *map(_container, values))]

    def shell(self, indent: str = "") -> str:
        """One option a line, quoted, the environment before it."""
        lines = [f"{name}={shlex.quote(value)}" for name, value in self.env]
        lines.append(" ".join(map(_shell, self.words)))
        lines += ["  " + " ".join([name, *map(_shell, values)]) for name, values in self.options]
        lines += ["  " + " ".join(map(_shell, self.tail))] if self.tail else []
        return " \\\n".join(indent + line for line in lines)


def _shell(value: Value) -> str:
    """A variable that is not set stops the script; `here` is the script's own folder."""
    if isinstance(value, Variable):
        return f'{value.before}"${{{value.name}:?}}"{value.rest}'
    if value.startswith("$here/"):
        return f'"$here"/{shlex.quote(value.removeprefix("$here/"))}'
    return shlex.quote(value)


def _container(value: Value) -> str:
    if isinstance(value, Variable):
        return f"{value.before}$({value.name}){value.rest}"
    return value.replace("$(", "$$(")  # Kubernetes would take it for a variable
