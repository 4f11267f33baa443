"""ConfigFields: typed reading of a config.json, so that a missing or malformed key is an error that names it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simtool.errors import InputError

REQUIRED = object()
_LARGEST = 10**9  # no dimension of a real model is larger; keeps a malformed file from exhausting memory
MAX_LAYERS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFields:
    """A JSON object and its place in the file. As in Hugging Face configs, null means "not given".

    Every reader takes alternative key names (the first one given counts) and a default: without one, a missing key
    raises InputError. A default is only passed where the transformers class of that model_type has the same one.
    """

    data: Mapping[str, Any]
    path: str

    def has(self, *keys: str) -> bool:
        """Whether any of `keys` is given and not null."""
        return any(self.data.get(key) is not None for key in keys)

    def value(self, keys: Sequence[str], default: object = REQUIRED) -> Any:
        """The first of `keys` that is given, else `default`. Raises InputError where there is neither."""
        for key in keys:
            if self.data.get(key) is not None:
                return self.data[key]
        if default is REQUIRED:
            names = " or ".join(f"`{key}`" for key in keys)
            raise InputError(self.path, f"config key {names} is missing", "give it in the config.json")
        return default

    def size(self, *keys: str, default: object = REQUIRED, minimum: int = 1) -> int:
        """A whole number of at least `minimum`."""
        found = self.value(keys, default)
        if isinstance(found, bool) or not isinstance(found, int) or not minimum <= found <= _LARGEST:
            raise InputError(found, f"{self.path}: `{keys[0]}` must be a whole number of at least {minimum}")
        return found

    def number(self, *keys: str, default: object = REQUIRED) -> float:
        """A finite positive number."""
        found = self.value(keys, default)
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found < _LARGEST:
            raise InputError(found, f"{self.path}: `{keys[0]}` must be a positive number")
        return float(found)

    def flag(self, *keys: str, default: object = REQUIRED) -> bool:
        """True or false."""
        found = self.value(keys, default)
        if not isinstance(found, bool):
            raise InputError(found, f"{self.path}: `{keys[0]}` must be true or false")
        return found

    def text(self, *keys: str, default: object = REQUIRED) -> str:
        """A string."""
        found = self.value(keys, default)
        if not isinstance(found, str):
            raise InputError(str(found)[:80], f"{self.path}: `{keys[0]}` must be a string")
        return found

    def child(self, key: str) -> ConfigFields:
        """The object under `key`."""
        found = self.value((key,))
        if not isinstance(found, Mapping):
            raise InputError(str(found)[:80], f"{self.path}: `{key}` must be an object")
        return ConfigFields(data=found, path=f"{self.path}.{key}")

    def sequence(self, key: str, length: int | None = None) -> list[Any]:
        """A list, of `length` entries where that is given."""
        found = self.value((key,))
        if not isinstance(found, list) or len(found) > MAX_LAYERS:
            raise InputError(str(found)[:80], f"{self.path}: `{key}` must be a list of at most {MAX_LAYERS}")
        if length is not None and len(found) != length:
            raise InputError(len(found), f"{self.path}: `{key}` must have {length} entries, one a layer")
        return found

    def sizes(self, key: str, length: int | None = None) -> list[int]:
        """A list of whole numbers of at least 0."""
        found = self.sequence(key, length)
        if any(isinstance(item, bool) or not isinstance(item, int) or item < 0 for item in found):
            raise InputError(str(found)[:80], f"{self.path}: `{key}` must hold whole numbers")
        return found

    def texts(self, key: str, length: int | None = None, allowed: Sequence[str] = ()) -> list[str]:
        """A list of strings, each one of `allowed` where that is given."""
        found = self.sequence(key, length)
        for item in found:
            if not isinstance(item, str) or (allowed and item not in allowed):
                raise self.unsupported(key, item, f"known: {', '.join(allowed)}" if allowed else "")
        return found

    def layers(self, *keys: str) -> int:
        """The number of layers, bounded."""
        return self._bounded(self.size(*(keys or ("num_hidden_layers",))))

    def extra_layers(self, key: str) -> int:
        """The number of multi-token-prediction layers, bounded; 0 where the file states none."""
        return self._bounded(self.size(key, default=0, minimum=0))

    def _bounded(self, count: int) -> int:
        if count > MAX_LAYERS:
            raise InputError(count, f"{self.path}: more than {MAX_LAYERS} layers")
        return count

    def unsupported(self, key: str, value: object, hint: str = "") -> InputError:
        """The error for a key whose value simtool does not model."""
        return InputError(f"{key}={str(value)[:80]}", f"{self.path}: not supported", hint)

    def refuse(self, key: str, *allowed: object) -> None:
        """Raise InputError when `key` is given with a value outside `allowed` (null, false, 0 are always allowed)."""
        found = self.data.get(key)
        if found and found not in allowed:
            raise self.unsupported(key, found)
