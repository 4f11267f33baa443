"""World: the processes that execute one model together. If one of them ends too early, all end, with one error.

The caller's process is rank 0: it holds the store that the others meet at, and starts them (`launch`), or torchrun has
(`environment_world`). Rank 0 watches its children; a child whose parent is gone ends itself.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from simtool.calibration.executor.memory_error import is_memory_error
from simtool.errors import InfeasibleError, InputError, SimtoolError

START_S = 120.0  # for all processes to have imported torch and met
COLLECTIVE_S = 300.0  # the longest that a rank waits for another in a collective
GRACE_S = 2.0  # after the first sign of trouble, for its cause to show
KILLED_S = 0.5  # of it for a killed process to be known, which explains what others report
WATCH_S = 0.5  # between two looks at whether the others live
STOP_S = 10.0  # for children to end by themselves when they are told to
ERROR = "error"

_DIST: Any = torch.distributed  # its stores are not among its declared names

RankMain = Callable[..., None]  # (world, *args): what ranks 1.. run


class RankFailedError(SimtoolError):
    """A process of the world ended or failed; the text says which and how."""


class World:
    """`size` processes, of which this is `rank`. store: a key-value store that all of them reach."""

    def __init__(self, rank: int, size: int, store: Any, children: Sequence[BaseProcess] = ()) -> None:
        self.rank = rank
        self.size = size
        self.store = store
        self.sessions = 0
        self._children = list(children)
        self._closed = threading.Event()
        if children:
            threading.Thread(target=self._watch, daemon=True).start()

    def __enter__(self) -> World:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close(at_once=failure[0] is not None)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Whatever goes wrong in the body is told once, by its cause, and ends all processes."""
        try:
            yield
        except Exception as error:
            found = self._cause(error)
            self.close(at_once=True)
            if found is error:
                raise
            raise found from error
        except BaseException:  # Ctrl-C: the others may wait for this rank
            self.close(at_once=True)
            raise

    def wait_for(self, key: str, limit_s: float = math.inf) -> bytes:
        """The value that another rank sets. RankFailedError, by way of `watched`, where a process ends meanwhile."""
        pause, deadline = 1e-4, time.monotonic() + limit_s
        while not self.store.check([key]):
            if self._dead() or self.store.check([ERROR]):
                raise RuntimeError("another rank failed")
            if time.monotonic() > deadline:
                raise RuntimeError(f"another rank did not answer in {limit_s:.0f} s")
            time.sleep(pause)
            pause = min(1.5 * pause, 0.01)
        return bytes(self.store.get(key))

    def close(self, *, at_once: bool = False) -> None:
        """End the group and the children: they are waited for, unless at once. Again does nothing."""
        if self._closed.is_set():
            return
        self._closed.set()
        deadline = time.monotonic() + (0.0 if at_once else STOP_S)
        for child in self._children:
            child.join(max(0.0, deadline - time.monotonic()))
        _kill(self._children)
        if torch.distributed.is_initialized():
            with contextlib.suppress(RuntimeError):
                torch.distributed.destroy_process_group()

    @property
    def running(self) -> bool:
        """Whether it was not closed."""
        return not self._closed.is_set()

    def _dead(self) -> list[BaseProcess]:
        return [child for child in self._children if child.exitcode is not None]

    def _cause(self, error: Exception) -> Exception:
        """The first failure: a process that was killed, else what a rank reported, else `error` itself."""
        if self.size == 1 or isinstance(error, InfeasibleError | InputError):
            return error
        deadline = time.monotonic() + GRACE_S
        reported = None
        while time.monotonic() < deadline:
            for child in self._dead():
                if child.exitcode is not None and child.exitcode < 0:
                    name = signal.Signals(-child.exitcode).name
                    return RankFailedError(f"{child.name} was killed ({name}); the run is ended")
            reported = reported or self._reported()
            if reported and time.monotonic() > deadline - GRACE_S + KILLED_S:
                break
            time.sleep(0.05)
        return reported or (
            error if isinstance(error, SimtoolError) else RankFailedError(f"rank 0: {first_line(error)}")
        )

    def _reported(self) -> Exception | None:
        with contextlib.suppress(RuntimeError):
            if self.store.check([ERROR]):
                told = json.loads(self.store.get(ERROR))
                if told["memory"]:
                    return InfeasibleError("memory", told["text"])
                return RankFailedError(told["text"])
        return None

    def _watch(self) -> None:
        """A rank that died leaves the others in a collective: end them, so that rank 0's own call fails too."""
        while not self._closed.wait(WATCH_S):
            if any(child.exitcode for child in self._dead()):
                if self._closed.wait(2 * GRACE_S):
                    return
                _kill(self._children)
                abort = getattr(torch.distributed.distributed_c10d, "_abort_process_group", None)
                if abort is not None and _DIST.is_initialized() and _DIST.get_backend() == "nccl":
                    with contextlib.suppress(RuntimeError):
                        abort()
                return


def launch(size: int, main: RankMain, args: tuple[object, ...] = (), *, device: str = "cpu") -> World:
    """Start ranks 1..size-1 as processes that run main(world, *args); this process becomes rank 0.

    They are spawned, so `main` and `args` must pickle, and a script that calls this needs its `__main__` guard.
    """
    if torch.distributed.is_initialized():
        raise InputError("torch.distributed", "is in use in this process already", "close the other runner first")
    _check_devices(size, device)
    store = _DIST.TCPStore("127.0.0.1", 0, None, True, timedelta(seconds=START_S), wait_for_workers=False)
    context: Any = torch.multiprocessing.get_context("spawn")
    children = [
        context.Process(
            target=_child,
            name=f"rank {rank}",
            daemon=True,
            args=(rank, size, store.port, device, os.getpid(), main, args),
        )
        for rank in range(1, size)
    ]
    _start(children)
    world = World(0, size, _DIST.PrefixStore("simtool", store), children)
    with world.watched():
        for rank in range(1, size):
            world.wait_for(f"here/{rank}")
        _join(rank=0, local_rank=0, size=size, store=store, device=device)
    return world


def _start(children: Sequence[BaseProcess]) -> None:
    """All or none. They are born with SIGINT blocked: a terminal's Ctrl-C is their parent's, which ends them."""
    resource_tracker.ensure_running()  # it unblocks SIGINT where it has to be started first
    try:
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for child in children:
                child.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)  # what came meanwhile is raised here
    except BaseException:
        _kill([child for child in children if child.pid is not None])
        raise


def environment_world(device: str = "cpu") -> World:
    """The world that torchrun's environment describes (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT)."""
    from torch.distributed.rendezvous import rendezvous

    port = os.environ.get("MASTER_PORT", "")
    try:
        store, rank, size = next(iter(rendezvous("env://", timeout=timedelta(seconds=START_S))))
    except ValueError as error:
        raise InputError("torchrun", f"its environment is incomplete: {first_line(error)}") from error
    except RuntimeError as error:
        if "EADDRINUSE" in str(error):
            raise InputError(f"MASTER_PORT={port}", "is in use", "give torchrun another --master-port") from error
        raise RankFailedError(f"the ranks did not meet at port {port}: {first_line(error)}") from error
    _join(rank=rank, local_rank=int(os.environ.get("LOCAL_RANK", rank)), size=size, store=store, device=device)
    return World(rank, size, _DIST.PrefixStore("simtool", store))


def report(world: World, error: BaseException) -> None:
    """Tell rank 0 why this rank ends; who reports first is heard."""
    memory = is_memory_error(error) or (isinstance(error, InfeasibleError) and error.constraint == "memory")
    detail = error.detail if isinstance(error, InfeasibleError) else first_line(error)
    told = json.dumps({"memory": memory, "text": f"rank {world.rank}: {detail}"})
    with contextlib.suppress(RuntimeError):
        world.store.compare_set(ERROR, "", told)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, and of what kind it is."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]


def _child(rank: int, size: int, port: int, device: str, parent: int, main: RankMain, args: tuple[object, ...]) -> None:
    """One process of `launch`. It ends when it is done, fails, or its parent is gone."""
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)
    store = _DIST.TCPStore("127.0.0.1", port, None, False, timedelta(seconds=START_S))
    world = World(rank, size, _DIST.PrefixStore("simtool", store))
    try:
        world.store.set(f"here/{rank}", b"=")
        _join(rank=rank, local_rank=rank, size=size, store=store, device=device)
        main(world, *args)
    except BaseException as error:
        report(world, error)
        os._exit(1)
    torch.distributed.destroy_process_group()


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    os._exit(1)


def _join(*, rank: int, local_rank: int, size: int, store: Any, device: str) -> None:
    if device == "cuda":
        torch.cuda.set_device(local_rank)
    torch.distributed.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        store=_DIST.PrefixStore("torch", store),
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=COLLECTIVE_S),
    )


def _check_devices(size: int, device: str) -> None:
    if device == "cuda" and torch.cuda.device_count() < size:
        raise InputError(f"{size} ranks", f"this machine has {torch.cuda.device_count()} GPUs", "smaller tp, pp, dp")


def _kill(children: Sequence[BaseProcess]) -> None:
    for child in children:
        if child.exitcode is None:
            child.kill()
    for child in children:
        child.join(STOP_S)
