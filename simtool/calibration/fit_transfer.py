"""Tables of all measured devices → profiles/transfer.json.gz: the pooled laws, with what leaving devices out says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from simtool.calibration.fit_transfer_law import Sample, fit_laws
from simtool.calibration.leave_one_out import interval_of, left_out, substitution_interval
from simtool.files import output_file
from simtool.hardware.profile_file import profile_bytes
from simtool.hardware.transfer_file import TRANSFER_NAME, TRANSFER_SCHEMA


def transfer_table(samples: Sequence[Sample], *, source: str, command: str) -> dict[str, Any]:
    """The JSON object of the pooled laws, without its checksum, of the families that more than one device has.

    Fits of another library's rows (those with a note) are no table of their own, so `samples` must not hold them.
    """
    outcomes = left_out(samples)
    families = sorted({outcome.sample.fit.family for outcome in outcomes})
    laws = fit_laws([sample for sample in samples if sample.fit.family in families])
    return {
        "schema_version": TRANSFER_SCHEMA,
        "source": source,
        "command": command,
        "laws": [
            {
                "library": library,
                "family": family,
                "dtype": dtype,
                "devices": sorted({s.device.name for s in samples if s.kind == (library, family, dtype)}),
                **asdict(law),
            }
            for (library, family, dtype), law in sorted(laws.items())
        ],
        "left_out": [
            {
                "family": family,
                "log_interval": interval_of(outcomes, family).tolist(),
                "substituted_log_interval": substitution_interval(samples, laws, family).tolist(),
            }
            for family in families
        ],
    }


def write_transfer(samples: Sequence[Sample], out: Path, *, source: str, command: str) -> Path:
    """Write the pooled laws under `out`, whole or not at all; returns the path. Same samples, same bytes."""
    path = out / TRANSFER_NAME
    data = profile_bytes(transfer_table(samples, source=source, command=command), packed=True)
    with output_file(path) as building:
        building.write_bytes(data)
    return path
