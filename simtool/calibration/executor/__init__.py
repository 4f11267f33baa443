"""Executor: a decoder of random weights that runs the batches a scheduler makes, in plain torch, with a paged cache.

It runs the functions of simtool.calibration.kernels, which profiling times, cut over ranks as models/lowering.py says.
"""
