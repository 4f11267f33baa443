"""npz files from elsewhere: numeric columns only, no pickle, a bounded size, one InputError for whatever is wrong."""

from __future__ import annotations

import lzma
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simtool.errors import InputError

_MAX_BYTES = 2**32  # unpacked; a packed file may claim any size
_READING = (OSError, ValueError, EOFError, KeyError, AttributeError, TypeError, NotImplementedError, RuntimeError)
_PACKED = (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, lzma.LZMAError)
_HEADER = (SyntaxError, tokenize.TokenError, OverflowError, MemoryError)


def read_npz(path: Path, *, kind: str, hint: str) -> dict[str, NDArray[Any]]:
    """All columns by name, each of whole or floating numbers. kind: what the file should be, for the InputError.

    Raises InputError for a file that is missing, truncated, packed beyond 4 GiB, or holds objects, text or records.
    """
    try:
        with path.open("rb") as opened:
            if opened.read(2) != b"PK":  # else NumPy would advise to trust it
                raise ValueError("it is no zip archive")
            opened.seek(0)
            archive = np.load(opened, allow_pickle=False)
            assert isinstance(archive, np.lib.npyio.NpzFile)
            entries = archive.zip.infolist() if archive.zip else []
            if sum(entry.file_size for entry in entries) > _MAX_BYTES:
                raise ValueError(f"it unpacks to more than {_MAX_BYTES:,} bytes")
            columns = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise InputError(path, "no such file", hint) from None
    except (*_READING, *_PACKED, *_HEADER) as error:
        raise InputError(path, f"is no {kind}: {str(error) or type(error).__name__}", hint) from None
    odd = [name for name, column in columns.items() if getattr(column, "dtype", np.dtype("V")).kind not in "iuf"]
    if odd:
        raise InputError(path, f"{odd[0]} does not hold numbers", hint)
    return columns


def whole_numbers(path: Path, name: str, column: NDArray[Any], *, least: int, most: int) -> None:
    """Raise InputError unless every entry is a whole number from least to most."""
    values = np.atleast_1d(column).astype(np.float64)
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= least) & (values <= most) & (values == np.rint(values))))
    if len(bad):
        row = f" in row {bad[0]}" if column.ndim else ""
        rule = f"{name} is {values[bad[0]]:g}{row}"
        raise InputError(path, rule, f"whole numbers from {least:,} to {most:,}; the file may be damaged")
