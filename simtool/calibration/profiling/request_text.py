"""A ProfileRequest from what a command line says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from simtool.calibration.profiling.request import FAMILIES, ProfileRequest
from simtool.calibration.profiling.shapes import served_shapes
from simtool.errors import InputError

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def parsed_request(
    *,
    budget: str,
    device: str = "",
    models: str = "",
    tp: str = "",
    dtypes: str = "",
    families: str = "",
    sizes: Mapping[str, int] | None = None,
    seed: int = 0,
) -> ProfileRequest:
    """What flags ask for; lists are comma-separated, "" is the usual. InputError where it makes no sense.

    sizes: the largest to be served, by ProfileRequest's names.

    torch, which is asked for the device where none is named, is looked for last: what is mistyped is told without it.
    """
    request = ProfileRequest(
        device=named_device(device) or "cpu",
        budget_s=budget_seconds(budget),
        models=names(models),
        tp=degrees(tp),
        dtypes=names(dtypes),
        families=names(families) or FAMILIES,
        seed=seed,
        **(sizes or {}),
    )
    served_shapes(request.served_models, request.tp_degrees)  # unknown models are told before anything is written
    return request if device else replace(request, device=usual_device())


def budget_seconds(text: str) -> float:
    """Seconds of "240", "240s", "4m" or "0.5h". InputError for anything else."""
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)([smh]?)", text.strip().lower())
    if found is None:
        raise InputError(text, "is no budget", "seconds, or as 240s, 4m, 0.5h")
    return float(found[1]) * _UNITS[found[2]]


def names(text: str) -> tuple[str, ...]:
    """The parts of a comma-separated list."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def degrees(text: str) -> tuple[int, ...]:
    """Whole numbers of a comma-separated list."""
    parts = names(text)
    for part in parts:
        if not re.fullmatch(r"\d{1,4}", part, flags=re.ASCII):
            raise InputError(text, "holds no tensor-parallel degrees", "as 1,8")
    return tuple(int(part) for part in parts)


def named_device(text: str) -> Literal["cpu", "cuda", ""]:
    """The kind of device that was asked for, "" for none."""
    if text == "cpu":
        return "cpu"
    if text == "cuda":
        return "cuda"
    if text:
        raise InputError(text, "is no device to profile", "cpu or cuda")
    return ""


def usual_device() -> Literal["cpu", "cuda"]:
    """The GPU where torch sees one, else the CPU. InputError without torch."""
    try:
        import torch
    except ImportError:
        raise InputError("torch", "is not installed, and measuring needs it", "pip install llm-simtool[gpu]") from None
    return "cuda" if torch.cuda.is_available() else "cpu"
