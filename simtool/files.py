"""Files that are whole or absent: everything is built aside and renamed into place at the end."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from simtool.errors import InputError

_HINT = "give a folder that this user may write to"


@contextmanager
def output_folder(folder: Path) -> Iterator[Path]:
    """A fresh folder to build in; on success its files land in `folder`, on any failure nothing there changes.

    A new folder appears by one rename. In an existing folder each file is replaced by one rename and files that
    simtool does not write stay. Raises InputError before the body runs where `folder` cannot be written.
    """
    home = folder if folder.is_dir() else _nearest_ancestor(folder)
    try:
        building = Path(tempfile.mkdtemp(prefix=".simtool-", dir=home))
    except OSError as error:
        raise InputError(str(folder), f"the output folder cannot be written: {error.strerror}", _HINT) from error
    try:
        yield building
        _publish(building, folder)
    except OSError as error:
        raise InputError(str(folder), f"the output cannot be written: {error.strerror}", _HINT) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


@contextmanager
def output_file(path: Path) -> Iterator[Path]:
    """A path to write to; on success it replaces `path` by one rename, on any failure `path` stays as it was.

    The temporary name keeps the suffixes of `path`, so that a writer that looks at them does the same. Raises
    InputError before the body runs where the folder of `path` cannot be written.
    """
    building = _beside(path)
    try:
        yield building / path.name
        os.replace(building / path.name, path)
    except OSError as error:
        raise InputError(str(path), f"the output cannot be written: {error.strerror}", _HINT) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def check_output_file(path: Path) -> None:
    """Raise InputError where `output_file` would not begin, before long work for it is done."""
    _beside(path).rmdir()


def read_text(path: Path, *, kind: str, max_bytes: int) -> str:
    """The text of a small file from elsewhere; `kind` names it in the InputError for one absent, huge or not UTF-8."""
    try:
        if path.stat().st_size > max_bytes:
            raise InputError(str(path), f"is larger than {max_bytes:,} bytes", f"is this a {kind}?")
        return path.read_text(encoding="utf-8-sig")  # spreadsheets put a mark in front
    except UnicodeDecodeError as error:
        raise InputError(str(path), "is not UTF-8 text", f"is this a {kind}?") from error
    except OSError as error:
        raise InputError(str(path), f"cannot be read: {error.strerror}", f"give the path of a {kind}") from error


def _beside(path: Path) -> Path:
    """An empty folder beside the file."""
    if path.is_dir():
        raise InputError(str(path), "is a folder, and a file is wanted", "give a file name")
    try:
        return Path(tempfile.mkdtemp(prefix=".simtool-", dir=path.parent))
    except OSError as error:
        raise InputError(str(path), f"the output file cannot be written: {error.strerror}", _HINT) from error


def _nearest_ancestor(folder: Path) -> Path:
    """The closest folder above that exists: the same file system, so that a rename is one operation."""
    return next(parent for parent in folder.absolute().parents if parent.exists())


def _publish(building: Path, folder: Path) -> None:
    """Move what was built to `folder`."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        building.chmod(0o777 & ~_umask())  # mkdtemp makes it private
        os.rename(building, folder)
        return
    for path in sorted(building.iterdir()):
        os.replace(path, folder / path.name)


def _umask() -> int:
    """The process's umask (it can only be read by setting it)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
