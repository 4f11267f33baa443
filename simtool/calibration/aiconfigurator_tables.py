"""Where AIConfigurator's tables lie: a folder of csv.gz, or the parquet tables of an `aiconfigurator-core` package.

csv.gz: [kernels/]SYSTEM/PREFIX__LIBRARY__VERSION.csv.gz.
Package: systems/data/SYSTEM/GROUP/LIBRARY/VERSION/PREFIX.parquet.
Only known prefixes at these places are opened: whatever else lies there (silicon_sample.csv) is never looked for.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simtool.calibration.aiconfigurator import SYSTEMS, Columns
from simtool.calibration.collective_samples import Row, read_rows
from simtool.calibration.measurements import read_columns
from simtool.errors import InputError

# The package's systems that the device catalogue has; others (a30, b300_sxm, gb300, b60) keep their own name.
SYSTEM_NAMES: Mapping[str, str] = {
    **SYSTEMS,
    "a100_pcie": "a100-pcie-80g",
    "h100_sxm": "h100-sxm",
    "h100_pcie": "h100-pcie",
    "b200_sxm": "b200",
    "gb200": "gb200",
    "l4": "l4",
    "rtx_pro_6000_server": "rtx-pro-6000",
}
INSTALLED = "installed"
PACKAGE = "aiconfigurator_core"
EXTRA = "pip install 'llm-simtool[silicon]'"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFile:
    """One table on disk."""

    system: str
    prefix: str
    library: str
    version: str
    path: Path

    @property
    def name(self) -> str:
        """The name it has in a csv folder, without the suffix."""
        return f"{self.prefix}__{self.library}__{self.version}"

    @property
    def first_line(self) -> int:
        """Where its first row stands: below the header, or row 1 of a parquet table."""
        return 1 if self.path.suffix == ".parquet" else 2

    def columns(self, needed: tuple[str, ...]) -> Columns:
        """Its columns; InputError where one of `needed` is not there."""
        if self.path.suffix == ".parquet":
            return read_parquet(self.path, needed)
        return read_columns(self.path, needed)

    def rows(self) -> Sequence[Row]:
        """Its rows as text."""
        if self.path.suffix != ".parquet":
            return read_rows(self.path)
        columns = read_parquet(self.path, ())
        return [dict(zip(columns, map(_text, values), strict=True)) for values in zip(*columns.values(), strict=True)]


def find_root(path: Path) -> Path:
    """The folder that holds one folder a system. "installed": that of the installed package, found, not imported."""
    if str(path) == INSTALLED:
        spec = importlib.util.find_spec(PACKAGE)  # a top-level name: finding it runs none of its code
        if spec is None or not spec.submodule_search_locations:
            raise InputError(INSTALLED, "aiconfigurator-core is not installed", EXTRA)
        path = Path(next(iter(spec.submodule_search_locations)))
    if not path.is_dir():
        raise InputError(path, "is no folder", f"the tables' folder, or {INSTALLED!r}")
    for below in ("systems/data", "data", "kernels"):
        if (path / below).is_dir():
            return path / below
    return path


def list_tables(root: Path, prefixes: Sequence[str]) -> Iterator[TableFile]:
    """Every version of the tables with one of `prefixes` under `root` (or a system's folder), in a fixed order."""
    for prefix in prefixes:
        for path in sorted([*root.glob(f"*/{prefix}__*__*.csv.gz"), *root.glob(f"{prefix}__*__*.csv.gz")]):
            _, library, version = path.name.removesuffix(".csv.gz").split("__", maxsplit=2)
            yield TableFile(system=path.parent.name, prefix=prefix, library=library, version=version, path=path)
        for path in sorted([*root.glob(f"*/*/*/*/{prefix}.parquet"), *root.glob(f"*/*/*/{prefix}.parquet")]):
            library, version = path.parts[-3:-1]
            yield TableFile(system=path.parts[-5], prefix=prefix, library=library, version=version, path=path)


def newest(tables: Sequence[TableFile], version: str = "") -> list[TableFile]:
    """The newest table of every prefix and library, or only those of `version`."""
    best: dict[tuple[str, str], TableFile] = {}
    for table in tables:
        key = table.prefix, table.library
        if version and table.version != version:
            continue
        if key not in best or version_key(table.version) > version_key(best[key].version):
            best[key] = table
    return list(best.values())


def version_key(version: str) -> list[tuple[int, int]]:
    """Sorts versions: by numbers, a pre-release before its release, a post-release after it."""
    early = ("a", "b", "rc", "dev")
    parts = re.findall(r"\d+|[a-z]+", version.lower())
    return [(2, int(p)) if p.isdigit() else ((0, 0) if p in early else (3, 0)) for p in parts] + [(1, 0)]


def read_parquet(path: Path, needed: tuple[str, ...]) -> Columns:
    """Columns of a parquet table: numbers as floats (null: NaN), the rest as text (null: empty)."""
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise InputError(path, "needs pyarrow to be read", EXTRA) from None
    try:
        table = parquet.read_table(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise InputError(path, f"cannot be read as a table: {error}", "a whole .parquet") from None
    missing = [name for name in needed if name not in table.column_names]
    if missing:
        raise InputError(path, f"lacks the columns {', '.join(missing)}", f"it has {', '.join(table.column_names)}")
    return {name: _values(table.column(name)) for name in table.column_names}


def _values(column: Any) -> list[str] | np.ndarray[Any, np.dtype[np.float64]]:
    kind = str(column.type)
    if kind.startswith(("int", "uint", "float", "double", "half")):
        return np.asarray(column.to_numpy(), dtype=np.float64)
    return ["" if value is None else str(value) for value in column.to_pylist()]


def _text(value: str | float) -> str:
    """A number as csv has it: no decimal point on whole ones."""
    if isinstance(value, str):
        return value
    return str(int(value)) if float(value).is_integer() else repr(float(value))
