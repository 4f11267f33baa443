"""Starting a runner for a plan's replica: in this process alone, or with others."""

from __future__ import annotations

from collections.abc import Sequence

from simtool.calibration.executor.batch import StepBatch, StepOutcome
from simtool.calibration.executor.distributed import DistributedRunner, serve_worker
from simtool.calibration.executor.host_memory import check_host_memory
from simtool.calibration.executor.options import ExecutorOptions
from simtool.calibration.executor.runner import Runner, TorchRunner
from simtool.calibration.executor.support import check_supported
from simtool.calibration.executor.world import World, launch
from simtool.models.architecture import ModelArchitecture
from simtool.plan import Parallel


def start_runner(arch: ModelArchitecture, parallel: Parallel, options: ExecutorOptions) -> Runner:
    """A runner of one replica; its processes end with `close`. What cannot be executed is refused before any starts."""
    check_supported(arch, parallel, options)
    check_host_memory(arch, parallel, options)
    if parallel.devices == 1:
        return TorchRunner(arch, options)
    world = launch(parallel.devices, serve_worker, (arch, parallel, options), device=options.device)
    try:
        return OwningRunner(world, DistributedRunner(world, arch, parallel, options))
    except BaseException:
        world.close(at_once=True)
        raise


class OwningRunner:
    """A distributed runner that ends its world with itself."""

    def __init__(self, world: World, inner: DistributedRunner) -> None:
        self._world = world
        self._inner = inner

    def submit(self, lane: int, batches: Sequence[StepBatch]) -> None:
        """As Runner says."""
        self._inner.submit(lane, batches)

    def collect(self, lane: int) -> StepOutcome:
        """As Runner says."""
        return self._inner.collect(lane)

    def forget_experts(self) -> None:
        """As Runner says."""
        self._inner.forget_experts()

    def close(self) -> None:
        """End the session and all its processes, also after a failure."""
        try:
            if self._world.running:
                self._inner.close()
        finally:
            self._world.close()
