"""Collectives: processes of torch.distributed on this machine, NCCL over its GPUs or gloo over CPU processes.

Sizes are counted as nccl-tests counts them: all_reduce the buffer; all_gather the gathered result; reduce_scatter the
whole input; all_to_all what a rank holds before sending; send_recv what one rank sends.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

import torch

from simtool.calibration.points import COLLECTIVE_KINDS, TimedCollective, Timing
from simtool.calibration.profiling.bench import CannotMeasureError
from simtool.calibration.profiling.clock import Call, summarised

GLOO_SIZES = tuple(4**power for power in range(5, 13))  # 1 KiB .. 16 MiB; each takes 0.1 s a kind and round
NCCL_SIZES = tuple(2**power for power in range(10, 29))  # 1 KiB .. 256 MiB
ROUNDS = 3  # over all sizes: a slow moment spoils one of a size's measurements, and their differences are the noise
TIMEOUT_S = 120.0
WINDOW_S = 0.008  # of back-to-back calls a sample
SAMPLES = 5


def timed_collectives(library: str, ranks: int) -> Sequence[TimedCollective]:
    """All collectives of all sizes over `ranks` processes. CannotMeasureError where they do not come up."""
    import torch.multiprocessing

    processes: Any = torch.multiprocessing
    with tempfile.TemporaryDirectory(prefix="simtool-") as folder:
        group = processes.start_processes(
            _rank_main, args=(ranks, library, folder), nprocs=ranks, join=False, start_method="spawn"
        )
        try:
            deadline = time.monotonic() + TIMEOUT_S
            while not group.join(timeout=1.0):
                if time.monotonic() > deadline:
                    raise CannotMeasureError(f"{library} over {ranks} processes took more than {TIMEOUT_S:.0f} s")
        except processes.ProcessRaisedException as error:
            raise CannotMeasureError(str(error).strip().splitlines()[-1][:300]) from None
        except processes.ProcessExitedException as error:
            raise CannotMeasureError(str(error)[:300]) from None
        finally:
            for process in group.processes:
                process.kill()
        return _read(Path(folder) / "rows.jsonl", library, ranks)


def _read(path: Path, library: str, ranks: int) -> list[TimedCollective]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        TimedCollective(
            name=row["name"],
            library=library,
            ranks=ranks,
            size_bytes=row["size_bytes"],
            timing=Timing(seconds=row["seconds"], spread=row["spread"], repeats=row["repeats"]),
        )
        for row in rows
    ]


def _rank_main(rank: int, ranks: int, library: str, folder: str) -> None:
    """One process of the group; rank 0 writes what it measured."""
    import signal

    import torch.distributed as dist

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its children
    torch.set_num_threads(1)
    device = f"cuda:{rank}" if library == "nccl" else "cpu"
    if library == "nccl":
        torch.cuda.set_device(rank)
    place = (Path(folder) / "meet").as_uri()
    dist.init_process_group(
        library, init_method=place, rank=rank, world_size=ranks, timeout=timedelta(seconds=TIMEOUT_S)
    )
    sizes = NCCL_SIZES if library == "nccl" else GLOO_SIZES
    kinds = COLLECTIVE_KINDS if ranks == 2 else [kind for kind in COLLECTIVE_KINDS if kind != "send_recv"]
    with (Path(folder) / "rows.jsonl").open("w", encoding="utf-8") if rank == 0 else contextlib.nullcontext() as file:
        for kind, size in [pair for _ in range(ROUNDS) for pair in product(kinds, sizes)]:
            timing = _timed(collective_call(kind, size, rank, ranks, device), device)
            if file is not None:
                row = {"name": kind, "size_bytes": size, "seconds": timing.seconds, "spread": timing.spread}
                file.write(json.dumps({**row, "repeats": timing.repeats}) + "\n")
    dist.destroy_process_group()


def collective_call(kind: str, size_bytes: int, rank: int, ranks: int, device: str) -> Call:
    """One collective of a float32 buffer in an initialised process group."""
    import torch.distributed as dist

    count = size_bytes // 4
    whole, part = torch.randn(count, device=device), torch.randn(count // ranks, device=device)
    match kind:
        case "all_reduce":
            # as fast as a sum, and it does not overflow however often it is called
            return lambda: dist.all_reduce(whole, op=dist.ReduceOp.MAX)
        case "all_gather":
            gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # renamed in torch 2.13
            return lambda: gather(whole, part)
        case "reduce_scatter":
            scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
            return lambda: scatter(part, whole)
        case "all_to_all":
            other = torch.empty_like(whole)
            return lambda: dist.all_to_all_single(other, whole)
        case _:
            if rank == 0:
                return lambda: dist.send(whole, dst=1)
            return lambda: dist.recv(whole, src=0)


def _timed(call: Call, device: str) -> Timing:
    """Wall seconds of a call, by rank 0 over back-to-back calls; all ranks make the same number of them."""
    import torch.distributed as dist

    for _ in range(3):
        call()
    once = torch.tensor([_wall_seconds(call, 3, device)], device=device)
    dist.all_reduce(once, op=dist.ReduceOp.MAX)
    count = max(2, min(200, int(WINDOW_S / float(once))))
    return summarised([_wall_seconds(call, count, device) for _ in range(SAMPLES)])


def _wall_seconds(call: Call, count: int, device: str) -> float:
    import torch.distributed as dist

    wait: Callable[[], object] = torch.cuda.synchronize if device != "cpu" else (lambda: None)
    dist.barrier()
    wait()
    start = time.perf_counter()
    for _ in range(count):
        call()
    wait()
    return max((time.perf_counter() - start) / count, 1e-9)
