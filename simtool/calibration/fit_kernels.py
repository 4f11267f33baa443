"""Fit the shipped kernel profiles, and the laws that carry them to other devices, from other people's kernel tables.

python -m simtool.calibration.fit_kernels --data DIR --out simtool/hardware/profiles
python -m simtool.calibration.fit_kernels --report
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from simtool.calibration import llmservingsim, vidur
from simtool.calibration.aiconfigurator import SYSTEMS, find_tables, read_table
from simtool.calibration.aiconfigurator_mla import gemm_by, read_modules, with_absorbed
from simtool.calibration.fit_profile import FittedTable, error_line, fit_table, profile_table, write_profile
from simtool.calibration.fit_transfer import write_transfer
from simtool.calibration.fit_transfer_law import Sample, sample_of
from simtool.calibration.measured_set import MeasuredSet
from simtool.calibration.measurements import Measurements
from simtool.calibration.peaks import peaks_of
from simtool.errors import InputError, SimtoolError
from simtool.hardware.device import Device, load_device
from simtool.hardware.kernel_profile import INTERVAL
from simtool.hardware.profile_file import load_shipped_profiles, read_profile

SEED = 20260821
LIBRARIES = ("vllm", "sglang", "trtllm")
SOURCES = (
    "ai-dynamo/aiconfigurator @ 095f58a51c4ca8e61b66ec108d86f223f8d559ce (2026-08-21), Apache-2.0; "
    "casys-kaist/LLMServingSim @ 5daddb21a545658d5150b535712d0494584b5278 (2026-08-21), MIT; "
    "microsoft/vidur @ 7d47513363ec447a741ac5e47241580b47724fbf (2024-11-19), MIT"
)
HOST_BOUND = 4.0  # the libraries' launch terms otherwise agree within 2.5x
CLEAR_MODULE = 0.10  # held-out median error above which a module's remainder is not used
COMMAND = "python -m simtool.calibration.fit_kernels --data ../shared/data --out simtool/hardware/profiles"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A fitted table of one device and library."""

    device: Device
    library: str
    table: FittedTable

    @property
    def key(self) -> tuple[str, str]:
        """Family and dtype."""
        return self.table.rows.family, self.table.rows.dtype


def fit_rows(device: Device, library: str, rows: Measurements) -> Fitted:
    """Fit one family and dtype of one device and library."""
    return Fitted(device=device, library=library, table=fit_table(rows, peaks_of(device.name, ()), SEED))


def with_transfer(fitted: Fitted, others: Iterable[Fitted]) -> FittedTable:
    """The table with the 90% log interval of carrying its fit to the other devices' rows by specification ratios (leave
    one device out). The law's own error, widened, where no other device has the family.
    """
    fit, errors = fitted.table.fit, []
    for other in others:
        if other.key != fitted.key or other.device.name == fitted.device.name:
            continue
        there = other.table
        moved = replace(fit, peak_flops=there.fit.peak_flops, bandwidth_bytes_per_s=there.fit.bandwidth_bytes_per_s)
        errors.append(np.log(there.rows.seconds) - moved.log_seconds(there.rows))
    if errors:
        low, high = np.quantile(np.concatenate(errors), INTERVAL)
    else:
        low, high = np.minimum(fit.law_interval[0], np.log(0.55)), np.maximum(fit.law_interval[1], np.log(2.0))
    return replace(fitted.table, transfer=(float(low), float(high)))


def fit_all(data: Path) -> list[Fitted]:
    """All fits of the data sets under `data`, in a fixed order. InputError when none of them is there."""
    fits = [_reported(fit_rows(*item)) for item in all_measurements(data)]
    if not fits:
        raise InputError(data, "holds no kernel table", "the folder with aiconfigurator/, llmservingsim/, vidur/")
    return with_modules(replace_host_bound(fits), data)


def _reported(fitted: Fitted) -> Fitted:
    rows = fitted.table.rows
    for refusal in rows.refused[:2]:
        print(f"{rows.table}: line {refusal.line} refused: {refusal.reason}", file=sys.stderr)
    print(f"{fitted.device.name}/{fitted.library}/{error_line(fitted.table)}", file=sys.stderr, flush=True)
    return fitted


def with_modules(fits: Sequence[Fitted], data: Path) -> list[Fitted]:
    """The fits with latent attention taken from whole-module tables, where a library has them and they are clear.

    They are what the engine really runs; but where the GEMMs take most of a module, the rest is their error.
    """
    found = []
    for system, name in SYSTEMS.items():
        device = load_device(name)
        for library in LIBRARIES:
            here = [f for f in fits if (f.device.name, f.library, f.key) == (name, library, ("gemm", "bf16"))]
            for clock in [gemm_by(f.table.fit.log_seconds) for f in here]:
                tables = read_modules(data / "aiconfigurator", system, library, device, clock)
                fitted = [_reported(fit_rows(device, library, rows)) for rows in tables]
                found += [f for f in fitted if f.table.fit.errors.held_out_median <= CLEAR_MODULE]
    better = {(f.device.name, f.library, f.key) for f in found}
    return [f for f in fits if (f.device.name, f.library, f.key) not in better] + found


def all_measurements(data: Path) -> Iterator[tuple[Device, str, Measurements]]:
    """(device, library, rows) of every table of use under `data`."""
    for system, name in SYSTEMS.items():
        device = load_device(name)
        for library in LIBRARIES:
            for kind, path in find_tables(data / "aiconfigurator", system, library):
                for rows in read_table(path, kind, device):
                    yield device, library, with_absorbed(rows, device) if rows.family == "mla_decode" else rows
    for folder, name in llmservingsim.DEVICES.items():
        device = load_device(name)
        for rows in llmservingsim.read_device(data / "llmservingsim", folder, device):
            yield device, "vllm", rows
    for folder, name in vidur.DEVICES.items():
        device = load_device(name)
        for rows in vidur.read_device(data / "vidur", folder, device):
            yield device, "vllm", rows


def replace_host_bound(fits: Sequence[Fitted]) -> list[Fitted]:
    """Replace tables that timed the host instead of the kernel by another library's table of the same device.

    Engines run decode steps as CUDA graphs, without that host time. A table is host-bound when the launch term of its
    law is more than HOST_BOUND times the least of the device's libraries for the family and dtype.
    """
    kept = []
    for fitted in fits:
        same = [f for f in fits if (f.device.name, f.key) == (fitted.device.name, fitted.key)]
        best = min(same, key=lambda f: f.table.fit.law.launch_s)
        launch = fitted.table.fit.law.launch_s
        if launch > HOST_BOUND * best.table.fit.law.launch_s:
            note = f"{fitted.library}'s own table is host-bound ({1e6 * launch:.0f} us a launch), {best.library}'s used"
            kept.append(replace(fitted, table=replace(best.table, note=note)))
        else:
            kept.append(fitted)
    return kept


def write_profiles(fits: Sequence[Fitted], out: Path) -> list[Path]:
    """One file a device and library under `out`; returns the paths. Same fits, same bytes."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for device, library in sorted({(f.device.name, f.library) for f in fits}):
        own = [f for f in fits if (f.device.name, f.library) == (device, library)]
        measured = MeasuredSet(
            device=device,
            library=library,
            version=_versions(own),
            source=SOURCES,
            licence="Apache-2.0 and MIT, as each source",
        )
        tables = [with_transfer(fitted, [f for f in fits if f.library == library]) for fitted in own]
        path = out / f"{device}__{library}.json.gz"
        write_profile(profile_table(measured, tables, command=COMMAND), path)
        written.append(path)
    return written


def samples_of(fits: Sequence[Fitted], written: Iterable[Path]) -> list[Sample]:
    """What the pooled laws are fitted to: the fits as they were written, each with rows of its own table."""
    profiles = {(profile.device, profile.library): profile for profile in map(read_profile, written)}
    own = [fitted for fitted in fits if not fitted.table.note]
    return [sample_of(f.device, profiles[f.device.name, f.library].fits[f.key], f.table.rows) for f in own]


def _versions(fits: Sequence[Fitted]) -> str:
    """The library versions that the tables name (the last part of their names), newest table first."""
    names = {f.table.rows.table.rsplit("__", 1)[-1] for f in fits if "__" in f.table.rows.table}
    return ", ".join(sorted(names, reverse=True))


def report_lines() -> list[str]:
    """The error table of the shipped profiles, one line a fit."""
    head = f"{'device':13}{'library':8}{'family':18}{'dtype':10}{'points':>7}{'in med':>8}{'in p95':>8}"
    head += f"{'out med':>8}{'out p95':>8}{'law med':>8}{'cover':>7}  table"
    lines = [head]
    for profile in load_shipped_profiles():
        for fit in profile.fits.values():
            e = fit.errors
            shares = (e.in_sample_median, e.in_sample_p95, e.held_out_median, e.held_out_p95, e.law_only_median)
            row = f"{fit.device:13}{fit.library:8}{fit.family:18}{fit.dtype:10}{e.in_sample_points:7}"
            row += "".join(f"{100 * share:7.1f}%" for share in shares)
            lines.append(f"{row}{100 * e.coverage_90:6.0f}%  {fit.table[:60]}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m simtool.calibration.fit_kernels", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder that holds aiconfigurator/, llmservingsim/, vidur/")
    parser.add_argument("--out", type=Path, help="folder to write profiles to")
    parser.add_argument("--report", action="store_true", help="print the error table of the shipped profiles")
    options = parser.parse_args(arguments)
    try:
        if options.report:
            print("\n".join(report_lines()))
        if options.data is not None and options.out is not None:
            fits = fit_all(options.data)
            written = write_profiles(fits, options.out)
            laws = write_transfer(samples_of(fits, written), options.out, source=SOURCES, command=COMMAND)
            print(*written, laws, sep="\n")
        elif options.data is not None or options.out is not None or not options.report:
            raise InputError("--data/--out", "are given together", "both, or --report alone")
    except (SimtoolError, OSError) as error:
        print(f"ERROR {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
