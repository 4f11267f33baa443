"""Expert offload as people write it: none, lru,slots=4, speculative,slots=4,staging=4,recall=0.9."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args

from simtool.errors import InputError
from simtool.plan import ExpertOffload, OffloadPolicyName

OFFLOAD_POLICIES: tuple[OffloadPolicyName, ...] = get_args(OffloadPolicyName)
AUTO_OFFLOAD = "auto"  # for a search: what a library has, where the model does not fit otherwise
_HINT = f"POLICY[,slots=N][,staging=N][,window=N][,recall=P]; policies: {', '.join(OFFLOAD_POLICIES)}"
_MOST = 2**15  # of experts
_KEYS = tuple(field.name for field in fields(ExpertOffload)[1:])


def parse_offload(text: str) -> ExpertOffload:
    """The offload that `text` says. Raises InputError for anything else."""
    name, *pairs = (part.strip() for part in text.split(","))
    policy = next((known for known in OFFLOAD_POLICIES if known == name), None)
    if policy is None:
        raise InputError(f"offload {text}", f"{name!r} is no policy", _HINT)
    options: dict[str, float] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if key not in _KEYS or key in options:
            raise InputError(f"offload {text}", f"has no option {key!r}, or twice", _HINT)
        options[key] = _number(value, text)
    recall = options.pop("recall", ExpertOffload().recall)
    if any(value != int(value) for value in options.values()):
        raise InputError(f"offload {text}", "slots, staging and window are whole numbers", _HINT)
    found = ExpertOffload(policy=policy, recall=recall, **{key: int(value) for key, value in options.items()})
    check_offload(found, f"offload {text}")
    return found


def check_offload(offload: ExpertOffload, source: str) -> None:
    """Raise InputError for numbers that no offload has."""
    for name in ("slots", "staging", "window"):
        least = 1 if name == "window" else 0
        if not least <= getattr(offload, name) <= _MOST:
            raise InputError(source, f"{name} is {getattr(offload, name)}", f"it lies between {least} and {_MOST:,}")
    if not 0.0 <= offload.recall <= 1.0:
        raise InputError(source, f"recall is {offload.recall}", "it lies in [0, 1]")
    if offload.off and offload != ExpertOffload():
        raise InputError(source, "keeps all experts in HBM, and has slots or other options", "name a policy")


def offload_text(offload: ExpertOffload) -> str:
    """What `parse_offload` reads; options that are the default are left out."""
    usual = ExpertOffload()
    given = [name for name in _KEYS if getattr(offload, name) != getattr(usual, name)]
    return ",".join([offload.policy, *(f"{name}={getattr(offload, name):g}" for name in given)])


def _number(value: str, text: str) -> float:
    try:
        number = float(value)
    except ValueError:
        raise InputError(f"offload {text}", f"{value!r} is no number", _HINT) from None
    if not 0.0 <= number <= _MOST:
        raise InputError(f"offload {text}", f"{value} is out of range", _HINT)
    return number
