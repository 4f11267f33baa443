"""The user's own profiles: named in a plan by path and checksum, read before the shipped ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from simtool.errors import InputError
from simtool.hardware.device import Device, device_names, load_device
from simtool.hardware.kernel_profile import KernelProfile
from simtool.hardware.measured_device import device_of, slug
from simtool.hardware.profile_file import read_profile
from simtool.plan import ProfileFile

CPU = "cpu"  # what a plan calls the CPU that it has a profile of
_SHORT = 19  # characters of a checksum that a message shows: "sha256:" and 12 digits


def profile_files(*paths: str | Path) -> tuple[ProfileFile, ...]:
    """The profiles at `paths` as a plan keeps them: absolute paths and checksums. The first of two that could price an
    operator does. InputError for a file that is no profile, or one of a device that neither it nor the catalogue says
    what it is.
    """
    absolute = dict.fromkeys(str(Path(path).resolve()) for path in paths)
    found = _named([_read(path) for path in absolute])
    return tuple(ProfileFile(path=profile.file, checksum=profile.checksum) for profile in found)


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
    return tuple(_named(found))


def own_devices(profiles: Iterable[KernelProfile]) -> tuple[Device, ...]:
    """The devices that loaded profiles describe because the catalogue lacks them, the first description of each."""
    known = device_names()
    found: dict[str, Device] = {}
    for profile in profiles:
        if profile.measured_device is not None and profile.device not in known and profile.device not in found:
            found[profile.device] = device_of(profile.measured_device, profile.device)
    return tuple(found.values())


def _read(path: str) -> KernelProfile:
    """The profile with its file in every part."""
    profile = read_profile(Path(path))
    return replace(
        profile,
        fits={key: replace(fit, file=path) for key, fit in profile.fits.items()},
        curves=tuple(replace(curve, file=path) for curve in profile.curves),
        file=path,
    )


def _named(profiles: Sequence[KernelProfile]) -> list[KernelProfile]:
    """The profiles under the names that a plan gives their devices: the catalogue's, or one of their own.

    A CPU's own name is long; the first one of a plan is "cpu".
    """
    described = {p.device: p.measured_device for p in reversed(profiles) if p.measured_device is not None}
    names: dict[str, str] = {}
    for profile in profiles:
        own = described.get(profile.device)
        if profile.device in names:
            continue
        try:
            names[profile.device] = load_device(profile.device).name
        except InputError as error:
            if own is None:
                rule = (
                    f"measures {profile.device!r}, which is not in the device catalogue and which it does not describe"
                )
                hint = f"calibrate anew: profiles now say what they measured; or `simtool hardware`: {error.hint}"
                raise InputError(profile.file, rule, hint) from None
            short = own.kind == "cpu" and CPU not in names.values()
            names[profile.device] = CPU if short else slug(profile.device)
    return [_renamed(profile, names[profile.device]) for profile in profiles]


def _renamed(profile: KernelProfile, device: str) -> KernelProfile:
    fits = {key: replace(fit, device=device) for key, fit in profile.fits.items()}
    return replace(profile, device=device, fits=fits)


def with_file(source: str, file: str) -> str:
    """The source of a price, with the user's profile that it came from where it did."""
    return f"{source} [{file}]" if file else source
