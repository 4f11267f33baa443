"""The user's own profiles: named in a plan by path and checksum, read before the shipped ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from simtool.errors import InputError
from simtool.hardware.device import load_device
from simtool.hardware.kernel_profile import KernelProfile
from simtool.hardware.profile_file import read_profile
from simtool.plan import ProfileFile

_SHORT = 19  # characters of a checksum that a message shows: "sha256:" and 12 digits


def profile_files(*paths: str | Path) -> tuple[ProfileFile, ...]:
    """The profiles at `paths` as a plan keeps them: absolute paths and checksums. The first of two that could price an
    operator does. InputError for a file that is no profile, or the profile of a device that the catalogue lacks.
    """
    absolute = dict.fromkeys(str(Path(path).resolve()) for path in paths)
    return tuple(ProfileFile(path=path, checksum=_read(path).checksum) for path in absolute)


def load_own_profiles(named: Iterable[ProfileFile]) -> tuple[KernelProfile, ...]:
    """The profiles that a plan names. InputError where one is missing, or is no longer what the plan was made with."""
    found = []
    for file in named:
        try:
            profile = _read(file.path)
        except InputError as error:
            hint = f"the plan is priced with this profile: put it back or give one with --profile; {error.hint}"
            raise InputError(error.value, error.rule, hint) from None
        if profile.checksum != file.checksum:
            rule = f"changed since the plan was made: {profile.checksum[:_SHORT]}, was {file.checksum[:_SHORT]}"
            raise InputError(file.path, rule, "put the old profile back, or give this one with --profile")
        found.append(profile)
    return tuple(found)


def _read(path: str) -> KernelProfile:
    """The profile with its file in every part, and the catalogue's name of its device."""
    profile = read_profile(Path(path))
    try:
        device = load_device(profile.device).name
    except InputError as error:
        rule = f"measures {profile.device!r}, which is not in the device catalogue"
        raise InputError(path, rule, f"`simtool hardware` lists devices; {error.hint}") from None
    return replace(
        profile,
        device=device,
        fits={key: replace(fit, device=device, file=path) for key, fit in profile.fits.items()},
        curves=tuple(replace(curve, file=path) for curve in profile.curves),
        file=path,
    )


def with_file(source: str, file: str) -> str:
    """The source of a price, with the user's profile that it came from where it did."""
    return f"{source} [{file}]" if file else source
