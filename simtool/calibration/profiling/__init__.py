"""Profiling: times the kernels that serving engines use on the machine it runs on. Needs only torch and numpy."""
