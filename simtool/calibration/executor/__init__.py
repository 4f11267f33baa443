"""The executor: a plan run for real, by the simulator's own scheduler and plain torch kernels."""
