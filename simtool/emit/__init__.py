"""A plan as commands and manifests that start it. Knows plans, models and engines' options; never knows time."""

from simtool.emit.emission import Emission, Request, Target, emission_text, emit, write_emission

__all__ = ["Emission", "Request", "Target", "emission_text", "emit", "write_emission"]
