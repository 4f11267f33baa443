"""IgnoreList: the module names and patterns that a checkpoint leaves unquantised."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import translate

from simtool.errors import InputError

_MAX_ENTRIES = 100_000
_MAX_PATTERN = 200
_MAX_WILDCARDS = 4  # with names under 100 characters this bounds the work of a hostile pattern
_NESTED = re.compile(r"[*+}]\s*[*+{]|\)\s*[*+{]|\(\?")


@dataclass(frozen=True, slots=True, kw_only=True)
class IgnoreList:
    """Plain entries match a module, what is inside it, or its last name parts; "re:" and "*" entries are patterns.

    lengths: how many name parts the plain entries have.
    """

    exact: frozenset[str] = frozenset()
    patterns: tuple[re.Pattern[str], ...] = ()
    lengths: tuple[int, ...] = ()

    def covers(self, module: str) -> bool:
        """Whether the module of that full dotted name is left unquantised."""
        parts = module.split(".")
        for length in self.lengths:
            for start in range(len(parts) - length + 1):
                if ".".join(parts[start : start + length]) in self.exact:
                    return True
        return any(pattern.match(module) for pattern in self.patterns)


def ignore_list(entries: Iterable[object], path: str) -> IgnoreList:
    """Read the entries of modules_to_not_convert, ignore or exclude_modules. Raises InputError for one it cannot."""
    exact: set[str] = set()
    patterns: list[re.Pattern[str]] = []
    for count, entry in enumerate(entries):
        if not isinstance(entry, str) or count >= _MAX_ENTRIES:
            raise InputError(str(entry)[:80], f"{path}: an ignored module must be a string")
        if entry.startswith("re:"):
            patterns.append(_compiled(entry[3:], entry, path))
        elif "*" in entry:
            # fnmatch on the module itself or on anything inside it, as ModelOpt's exclude_modules means it.
            body = translate(entry).removesuffix(r"\Z").removesuffix(r"\z")
            _checked(entry, path)
            patterns.append(re.compile(body + r"(\..*)?\Z"))
        else:
            exact.add(entry)
    lengths = sorted({entry.count(".") + 1 for entry in exact})
    return IgnoreList(exact=frozenset(exact), patterns=tuple(dict.fromkeys(patterns)), lengths=tuple(lengths))


def _compiled(source: str, entry: str, path: str) -> re.Pattern[str]:
    _checked(entry, path)
    try:
        return re.compile(source)
    except re.error as error:
        raise InputError(entry[:80], f"{path}: not a valid regular expression: {error}") from error


def _checked(entry: str, path: str) -> None:
    wildcards = entry.count("*") + entry.count("+") + entry.count("{")
    if len(entry) > _MAX_PATTERN or wildcards > _MAX_WILDCARDS or _NESTED.search(entry.removeprefix("re:")):
        raise InputError(entry[:80], f"{path}: ignore pattern is too complex", "list the modules by name")
