"""The trace file itself: opened as text whether gzipped or not, with every reading error turned into an InputError."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TextIO, cast

from simtool.errors import InputError

GZIP_MAGIC = b"\x1f\x8b"
ROWS_PER_CHUNK = 1 << 13  # rows parsed at once: bounds the temporary memory
SNIFF_CHARS = 1 << 16
DOCUMENT_CHARS = 1 << 20


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """The file as text. Raises InputError when it is missing, unreadable, damaged or not UTF-8."""
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            stream = cast(io.BufferedReader, gzip.GzipFile(fileobj=raw, mode="rb")) if packed else raw
            with io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
                yield text
    except FileNotFoundError as error:
        raise InputError(path, "no such file") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(path, "the gzip data is truncated or damaged", "fetch or compress the file again") from error
    except UnicodeDecodeError as error:
        raise InputError(path, f"not UTF-8 text (byte {error.start})", "give CSV, JSON or JSONL text") from error
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror or error}") from error


def head(path: Path) -> str:
    """The first characters of the file (at most SNIFF_CHARS), leading blank space removed."""
    with opened(path) as text:
        return text.read(SNIFF_CHARS).lstrip()


def where(path: Path, line: int) -> str:
    """How errors name a place in a file."""
    return f"{path.name} line {line}"


def json_lines(path: Path) -> Iterator[tuple[list[dict[str, Any]], list[int]]]:
    """Chunks of (objects, line numbers) of a JSONL file; blank lines are skipped."""
    with opened(path) as text:
        numbered = ((number, line) for number, line in enumerate(text, 1) if line.strip())
        while chunk := list(islice(numbered, ROWS_PER_CHUNK // 4)):
            yield [_object(path, number, line) for number, line in chunk], [number for number, _ in chunk]


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    """One line as a JSON object."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        hint = "" if line.endswith("\n") else "the file may be truncated"
        raise InputError(f"{where(path, number)}: {_clipped(line)}", f"not JSON: {error}", hint) from error
    if not isinstance(value, dict):
        raise InputError(f"{where(path, number)}: {_clipped(line)}", "must be one JSON object a line")
    return value


def json_items(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON list, decoded one at a time as the text comes in."""
    decoder = json.JSONDecoder()
    with opened(path) as text:
        buffer = text.read(DOCUMENT_CHARS).lstrip()[1:]
        number = 0
        while True:
            buffer = buffer.lstrip()
            if number and buffer.startswith(","):
                buffer = buffer[1:].lstrip()
            if buffer.startswith("]"):
                return
            try:
                item, end = decoder.raw_decode(buffer)
            except ValueError as error:
                more = text.read(max(DOCUMENT_CHARS, len(buffer)))
                if not more:
                    rule = f"item {number} is not JSON: {error}"
                    raise InputError(path, rule, "the file may be truncated") from error
                buffer += more
                continue
            except RecursionError as error:
                raise InputError(path, f"item {number} is nested too deeply") from error
            if not isinstance(item, dict):
                raise InputError(f"{path.name} item {number}: {_clipped(str(item))}", "must be a JSON object")
            yield item
            buffer = buffer[end:]
            number += 1


def json_document(path: Path) -> dict[str, Any]:
    """A file that is one JSON object (a vLLM benchmark result); it is held whole."""
    with opened(path) as text:
        try:
            value = json.load(text)
        except (ValueError, RecursionError) as error:
            raise InputError(path, f"not JSON: {error}", "the file may be truncated") from error
    if not isinstance(value, dict):
        raise InputError(path, "must be one JSON object")
    return value


def _clipped(text: str) -> str:
    """Enough of a line to recognise it."""
    text = text.strip()
    return text if len(text) <= 60 else text[:57] + "..."
