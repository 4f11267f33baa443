"""The pooled laws that come with simtool, profiles/transfer.json.gz: written by simtool.calibration.fit_transfer."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from simtool.errors import InputError
from simtool.hardware.kernel_profile import REGIMES
from simtool.hardware.profile_file import parse_entry
from simtool.hardware.transfer import PooledFit, TransferLaw

if TYPE_CHECKING:
    from simtool.hardware.profile_entries import LeftOutEntry, TransferLawEntry

TRANSFER_SCHEMA = 1
TRANSFER_NAME = "transfer.json.gz"
Kind = tuple[str, str, str]  # library, family, dtype


def load_shipped_transfers() -> Mapping[Kind, PooledFit]:
    """(library, family, dtype) -> the pooled law. Empty where none is shipped."""
    path = files("simtool.hardware").joinpath("profiles", TRANSFER_NAME)
    return parse_transfers(path.read_bytes(), TRANSFER_NAME) if path.is_file() else {}


def parse_transfers(data: bytes, name: str) -> Mapping[Kind, PooledFit]:
    """The laws in JSON bytes, plain or gzip; `name` is for messages. InputError when they are not laws."""
    from simtool.hardware.profile_entries import TransferEntry

    entry = parse_entry(data, name, TransferEntry, TRANSFER_SCHEMA)
    known = {one.family: one for one in entry.left_out}
    wrong = [law.family for law in entry.laws if law.family not in known]
    wrong += [one.family for one in entry.left_out if len(one.log_interval) != len(REGIMES)]
    if wrong:
        raise InputError(f"{name}: {wrong[0]}", "its intervals are missing or of the wrong shape", "fit it again")
    return {(law.library, law.family, law.dtype): _pooled(law, known[law.family]) for law in entry.laws}


def _pooled(law: TransferLawEntry, known: LeftOutEntry) -> PooledFit:
    return PooledFit(
        law=TransferLaw(**law.model_dump(exclude={"library", "family", "dtype", "devices"})),
        left_out=np.array(known.log_interval),
        substituted=np.array(known.substituted_log_interval),
    )
