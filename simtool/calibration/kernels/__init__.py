"""Kernels: the plain-torch functions that profiling times and the executor runs. One function, so that both agree."""
