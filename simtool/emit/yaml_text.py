"""JSON-like values as YAML that people read: block style, a string in quotes wherever a reader could take it amiss."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*(?:[:=@+,][A-Za-z0-9_./-]+)*")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"})  # YAML 1.1's
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff\ufffe\uffff]")


def yaml_text(value: Any) -> str:
    """The value as one YAML document, with a final newline."""
    if not isinstance(value, Mapping | list):
        return _scalar(value) + "\n"
    return "\n".join(_lines(value)) + "\n"


def yaml_documents(values: list[Any]) -> str:
    """Several documents in one file."""
    return "---\n".join(yaml_text(value) for value in values)


def _lines(value: Any) -> Iterator[str]:
    """The lines of a mapping or a list, without indentation."""
    if not value:
        yield "{}" if isinstance(value, Mapping) else "[]"
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if _nested(item):
                yield f"{_string(str(key))}:"
                yield from (f"  {line}" for line in _lines(item))
            else:
                yield f"{_string(str(key))}: {_scalar(item)}"
    else:
        for item in value:
            first, *rest = _lines(item) if _nested(item) else [_scalar(item)]
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)


def _nested(value: Any) -> bool:
    return isinstance(value, Mapping | list) and bool(value)


def _scalar(value: Any) -> str:
    if isinstance(value, Mapping | list):
        return "{}" if isinstance(value, Mapping) else "[]"
    if isinstance(value, str):
        return _string(value)
    text = json.dumps(value)
    return text if "." in text else text.replace("e", ".0e", 1) if isinstance(value, float) else text  # YAML 1.1


def _string(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False))
