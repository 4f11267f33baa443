"""The recorded options of an engine's version: which exist, and which values they take."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from simtool.errors import InputError

_FILE = re.compile(r"(?P<engine>[a-z-]+)-(?P<version>\d[\w.]*)\.json")
_NAMES = {
    "vllm": "vLLM",
    "sglang": "SGLang",
    "sglang-router": "SGLang's router",
    "trtllm": "TensorRT-LLM",
    "dynamo": "Dynamo",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option. negative: what turns a flag off ("": nothing does). choices empty: any value of the type."""

    name: str
    type: str
    many: bool
    choices: tuple[str, ...]
    negative: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionTable:
    """A version's options by program, each under its name and its aliases."""

    engine: str
    version: str
    source: str
    programs: Mapping[str, Mapping[str, Option]]

    @property
    def title(self) -> str:
        """The engine and version as a message names them."""
        return f"{_NAMES.get(self.engine, self.engine)} {self.version}"

    def option(self, program: str, *names: str) -> Option:
        """The first of `names` that this version has. Raises InputError where it has none."""
        known = self.programs[program]
        for name in names:
            if name in known:
                return known[name]
        raise InputError(names[0], f"{self.title} has no such option of `{program}`", _versions_hint(self.engine))

    def has(self, program: str, name: str, value: str | None = None) -> bool:
        """Whether the version has the option, and takes the value."""
        option = self.programs[program].get(name)
        return option is not None and (value is None or not option.choices or value in option.choices)

    def check(self, program: str, name: str, values: tuple[str, ...]) -> None:
        """Raise InputError unless the version has the option and takes these values (none for a flag)."""
        option = self.option(program, name)
        if option.type == "flag":
            if values:
                raise InputError(f"{name} {' '.join(values)}", f"{self.title} takes no value here", "leave it out")
            return
        if not values or (len(values) > 1 and not option.many):
            raise InputError(name, f"{self.title} wants {'values' if option.many else 'one value'}")
        for value in values:
            if option.choices and value not in option.choices:
                hint = f"one of {', '.join(option.choices)}"
                raise InputError(f"{name} {value}", f"is not a value that {self.title} knows", hint)
            if not _is(option.type, value):
                raise InputError(f"{name} {value}", f"{self.title} wants a number of type {option.type} here")


def recorded_versions(engine: str) -> tuple[str, ...]:
    """The versions recorded, the newest first."""
    found = [match for match in map(_FILE.fullmatch, _names()) if match and match["engine"] == engine]
    return tuple(sorted((match["version"] for match in found), key=_order, reverse=True))


def load_table(engine: str, version: str = "") -> OptionTable:
    """The table of a version, or of the newest one recorded. Raises InputError for a version that is not recorded."""
    versions = recorded_versions(engine)
    if not versions:
        raise InputError(engine, "is no engine or client whose options are recorded", "vllm or sglang")
    if version and version not in versions:
        hint = f"recorded: {', '.join(versions)}; docs/emit.md says how to record another"
        raise InputError(version, f"no options of this version of {_NAMES.get(engine, engine)} are recorded", hint)
    return _load(f"{engine}-{version or versions[0]}.json")


@cache
def _load(name: str) -> OptionTable:
    data = json.loads((files("simtool.emit") / "data" / name).read_text(encoding="utf-8"))
    return OptionTable(
        engine=data["engine"],
        version=data["version"],
        source=data["source"],
        programs={program: _options(entries) for program, entries in data["programs"].items()},
    )


def _options(entries: Mapping[str, Mapping[str, object]]) -> dict[str, Option]:
    known: dict[str, Option] = {}
    for name, entry in entries.items():
        negative = _texts(entry.get("negative"))
        option = Option(
            name=name,
            type=str(entry["type"]),
            many=entry.get("nargs") in ("+", "*"),
            choices=_texts(entry.get("choices")),
            negative=negative[0] if negative else "",
        )
        known |= dict.fromkeys((name, *_texts(entry.get("aliases")), *negative), option)
    return known


def _texts(value: object) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list) else ()


def _names() -> list[str]:
    return [entry.name for entry in (files("simtool.emit") / "data").iterdir()]


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def _is(kind: str, value: str) -> bool:
    try:
        {"int": int, "float": float}.get(kind, str)(value)
    except ValueError:
        return False
    return True


def _versions_hint(engine: str) -> str:
    return f"--engine-version picks another: {', '.join(recorded_versions(engine))}"
