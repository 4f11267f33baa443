"""`simtool compile`: make the machine code of the simulator's kernels now instead of in the first run."""

from __future__ import annotations


def compile_command() -> int:
    """Compile the simulator's kernels and keep them on disk (done by the first run otherwise; a minute, once)."""
    from simtool.simulator.warm import compile_kernel, kernel_is_ready
    from simtool.terminal import note

    if kernel_is_ready():
        note("the kernels are compiled already")
        return 0
    note("compiling the simulator's kernels, once")
    compile_kernel()
    return 0


def announce_compilation(*, replica: bool = True, tasks: bool = False, offload: bool = False) -> None:
    """Say on stderr that the first run takes longer, and why. What runs: replicas, task graphs, offloaded experts."""
    from simtool.simulator.warm import run_is_ready
    from simtool.terminal import note

    if not run_is_ready(replica=replica, tasks=tasks, offload=offload):
        long = "a minute" if replica else "ten seconds"
        note(f"compiling the simulator's kernel first; this happens once and takes {long}")
