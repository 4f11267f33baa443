"""Price: dollars an hour of devices, from the catalogue's dated defaults or from what the user says."""

from __future__ import annotations

import math
from collections.abc import Mapping

from simtool.errors import InputError
from simtool.hardware.device import Device, load_device


def price_per_hour(device: Device, overrides: Mapping[str, float] | None = None) -> float:
    """USD an hour of one `device`; `overrides` maps a name or alias to a price. InputError where neither gives one."""
    for name, price in (overrides or {}).items():
        if name.strip().lower().replace("_", "-") in (device.name, *device.aliases):
            return _checked(name, price)
    if device.price_per_hour is None:
        raise InputError(device.name, "has no public price in the catalogue", f"give one: {device.name}=USD an hour")
    return device.price_per_hour


def cluster_price_per_hour(devices: Mapping[str, int], overrides: Mapping[str, float] | None = None) -> float:
    """USD an hour of `devices` (name -> count). InputError for unknown devices and override names."""
    given = dict(overrides or {})
    for name, price in given.items():
        load_device(name)
        _checked(name, price)
    return sum(count * price_per_hour(load_device(name), given) for name, count in devices.items())


def _checked(name: str, price: float) -> float:
    if not math.isfinite(price) or price < 0:
        raise InputError(f"{name}={price}", "is no price", "US dollars an hour, 0 or more")
    return price
