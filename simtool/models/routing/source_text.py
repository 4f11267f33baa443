"""Routing sources as people write them: uniform, zipf:1.2, dirichlet:0.3,drift=0.01, mixtral-8x7b,locality=0.4."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simtool.errors import InputError
from simtool.models.routing.fitted import fitted_source, shipped_routing
from simtool.models.routing.shape import MoeShape
from simtool.models.routing.source import RoutingSource, dirichlet, stretched, uniform, with_classes, zipf

TRACE_SUFFIXES = (".npz", ".jsonl", ".jsonl.gz")
_KEYS = ("locality", "drift", "classes", "affinity")
_AFFINITY = 1.0  # of classes, where none is given


def is_trace_file(text: str) -> bool:
    """Whether the text names a recorded trace, not a source."""
    return text.endswith(TRACE_SUFFIXES)


def parse_source(text: str, shape: MoeShape | None, rng: np.random.Generator) -> tuple[RoutingSource, tuple[int, ...]]:
    """(source, the model's numbers of its layers). Without a shape a fitted one has the layers that were counted.

    NAME[:NUMBER][,locality=P][,drift=D][,classes=N[,affinity=A]]. Raises InputError for anything else, and for a
    fitted model whose experts are not the shape's.
    """
    head, *pairs = text.split(",")
    options = dict(_option(pair, text) for pair in pairs)
    if len(options) < len(pairs):
        raise InputError(text, "gives an option twice")
    source, layers = _named(head, options, shape, rng, text)
    if "classes" in options:
        source = with_classes(source, int(options["classes"]), options.get("affinity", _AFFINITY), rng)
    elif "affinity" in options:
        raise InputError(text, "affinity is of classes", "add classes=8")
    return replace(source, locality=options.get("locality", 0.0), source=text), layers


def _named(
    head: str, options: dict[str, float], shape: MoeShape | None, rng: np.random.Generator, text: str
) -> tuple[RoutingSource, tuple[int, ...]]:
    """The source of the name, without classes and locality."""
    name, _, number = head.partition(":")
    if "drift" in options and name != "dirichlet":
        raise InputError(text, "drift is of a Dirichlet popularity", "dirichlet:0.3,drift=0.01")
    fits = {fit.name: fit for fit in shipped_routing()}
    if name in fits and not number:
        return _fitted(fitted_source(fits[name]), fits[name].shape, shape, rng)
    if name not in ("uniform", "zipf", "dirichlet"):
        hint = f"uniform, zipf:EXPONENT, dirichlet:CONCENTRATION, {', '.join(fits)}, or a file"
        raise InputError(text, "is no routing source", hint)
    if shape is None:
        raise InputError(text, "needs to know how many experts there are", "--model NAME")
    if name == "uniform":
        if number:
            raise InputError(text, "uniform takes no number")
        return uniform(shape), shape.layers
    value = _number(number, text)
    if name == "zipf":
        return zipf(shape, value, rng), shape.layers
    return dirichlet(shape, value, rng, drift=options.get("drift", 0.0)), shape.layers


def _fitted(
    source: RoutingSource, own: MoeShape, shape: MoeShape | None, rng: np.random.Generator
) -> tuple[RoutingSource, tuple[int, ...]]:
    """Over the counted layers, or stretched over the model's."""
    if shape is None:
        return source, own.layers
    if (shape.num_experts, shape.top_k) != (own.num_experts, own.top_k):
        rule = f"is of {own.top_k} of {own.num_experts} experts and the model has {shape.top_k} of {shape.num_experts}"
        raise InputError(source.source, rule, "leave --model out, or choose another source")
    return stretched(source, len(shape.layers), rng), shape.layers


def _option(pair: str, text: str) -> tuple[str, float]:
    key, _, value = pair.partition("=")
    if key not in _KEYS:
        raise InputError(text, f"has no option {key!r}", f"one of {', '.join(_KEYS)}")
    number = _number(value, text)
    if key == "classes" and not (number >= 1 and number == int(number)):
        raise InputError(text, "classes must be a whole number of at least 1")
    return key, number


def _number(value: str, text: str) -> float:
    try:
        number = float(value)
    except ValueError:
        raise InputError(text, f"{value!r} is no number", "zipf:1.2 or dirichlet:0.3,drift=0.01") from None
    if not -1e9 < number < 1e9:
        raise InputError(text, f"{value} is no number of use")
    return number
