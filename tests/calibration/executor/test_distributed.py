"""Sharded over processes, a model samples the tokens that it samples whole; and no failure leaves a process behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="the executor runs on torch")

from simtool.calibration.executor.batch import StepBatch  # noqa: E402
from simtool.calibration.executor.distributed import DistributedRunner, serve_worker  # noqa: E402
from simtool.calibration.executor.options import ExecutorOptions  # noqa: E402
from simtool.calibration.executor.runner import TorchRunner  # noqa: E402
from simtool.calibration.executor.starting import start_runner  # noqa: E402
from simtool.calibration.executor.world import RankFailedError, environment_world, launch  # noqa: E402
from simtool.errors import InfeasibleError, InputError, SimtoolError  # noqa: E402
from simtool.models.architecture import ModelArchitecture  # noqa: E402
from simtool.overlaps import STOCK  # noqa: E402
from simtool.plan import Parallel  # noqa: E402
from tests.calibration.executor.models import DENSE, GQA, MODELS, MOE, model  # noqa: E402
from tests.calibration.executor.serving import BLOCK, next_batch, prompts, requests, serve  # noqa: E402
from tests.calibration.executor.worlds import die_at_once, fail_in_session, lack_memory, serve_all  # noqa: E402

BLOCKS, COUNT = 64, 4
OPTIONS = ExecutorOptions(num_blocks=BLOCKS, block_size=BLOCK)
UNEVEN = model(GQA, [DENSE, DENSE, MOE])
CUT = replace(OPTIONS, overlap=STOCK["two-batch"])
PLAIN = (
    (MODELS["gqa"], Parallel(tp=2)),
    (MODELS["tied"], Parallel(tp=2)),  # one KV head, on both ranks
    (MODELS["mla"], Parallel(tp=2)),
    (MODELS["grouped_moe"], Parallel(tp=2, ep=2)),
    (MODELS["moe"], Parallel(dp=2, ep=2)),
    (MODELS["moe"], Parallel(dp=2)),  # experts cut inside
    (MODELS["gqa"], Parallel(dp=2)),
    (MODELS["mla"], Parallel(pp=2)),
    (UNEVEN, Parallel(pp=2, layers_per_stage=(1, 2))),
    (MODELS["tied"], Parallel(pp=2)),
)
PAIRS: tuple[tuple[ModelArchitecture, Parallel, ExecutorOptions], ...] = (
    *((arch, parallel, OPTIONS) for arch, parallel in PLAIN),
    *((arch, parallel, CUT) for arch, parallel in (PLAIN[0], PLAIN[4], PLAIN[8])),
)
QUADS = (
    (MODELS["moe"], Parallel(tp=2, dp=2, ep=4), OPTIONS),  # tokens cut over tp
    (MODELS["moe"], Parallel(tp=2, dp=2, ep=2), OPTIONS),
    (MODELS["moe"], Parallel(tp=2, dp=2), OPTIONS),
    (MODELS["moe"], Parallel(tp=2, pp=2, ep=2), OPTIONS),
    (MODELS["moe"], Parallel(tp=2, dp=2, ep=4), CUT),
)


def loads(parallel):
    """Requests of each data-parallel rank; the second rank has fewer, and ends earlier."""
    return [requests(prompts(4 - 2 * rank, seed=rank), COUNT, BLOCKS, seed=rank) for rank in range(parallel.dp)]


def whole(arch, parallel):
    """What one process samples for the same requests."""
    return [serve(TorchRunner(arch, OPTIONS), [rows], COUNT, 16)[0][0] for rows in loads(parallel)]


def check_all(cases):
    with launch(cases[0][1].devices, serve_all, (cases,)) as world:
        for arch, parallel, options in cases:
            runner = DistributedRunner(world, arch, parallel, options)
            outputs, outcomes = serve(runner, loads(parallel), COUNT, 16, lanes=parallel.pp)
            runner.close()
            assert outputs == whole(arch, parallel), parallel
            assert all(outcome.seconds >= outcome.host_s > 0 for outcome in outcomes)


def test_two_ranks_sample_what_one_does():
    check_all(PAIRS)


def test_four_ranks_sample_what_one_does():
    check_all(QUADS)


def test_two_lanes_are_in_flight_together():
    arch, parallel = MODELS["gqa"], Parallel(pp=2)
    runner = start_runner(arch, parallel, OPTIONS)
    try:
        first, second = requests(prompts(2, seed=7), 1, BLOCKS)
        batches = [next_batch([one], 1, 100)[0] for one in (first, second)]
        for lane, batch in enumerate(batches):
            runner.submit(lane, [batch])
        found = [runner.collect(lane).tokens[0].tolist() for lane in (1, 0)]
        single = TorchRunner(arch, OPTIONS)
        for batch in batches[::-1]:
            single.submit(0, [batch])
        assert found == [single.collect(0).tokens[0].tolist() for _ in range(2)]
    finally:
        runner.close()


def test_a_step_that_rank_0_cannot_run_ends_the_others():
    runner = start_runner(MODELS["gqa"], Parallel(tp=2), OPTIONS)
    pids = [child.pid for child in runner._world._children]
    batch = next_batch(requests(prompts(1), 1, BLOCKS), 1, 100)[0]
    beyond = replace(batch.prefills[0], blocks=batch.prefills[0].blocks + 10 * BLOCKS)
    with pytest.raises(SimtoolError, match="rank"):
        runner.submit(0, [StepBatch(prefills=(beyond,))])
    runner.close()
    assert gone_within(pids, 5.0)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"


def gone_within(pids, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(alive(pid) for pid in pids):
        time.sleep(0.05)
    return not any(alive(pid) for pid in pids)


def test_a_killed_worker_is_one_error_and_no_orphans():
    arch, parallel = MODELS["gqa"], Parallel(tp=2)
    world = launch(2, serve_worker, (arch, parallel, OPTIONS))
    pids = [child.pid for child in world._children]
    runner = DistributedRunner(world, arch, parallel, OPTIONS)
    os.kill(pids[0], signal.SIGKILL)
    start = time.monotonic()
    with pytest.raises(RankFailedError, match=r"rank 1 was killed \(SIGKILL\)"):
        serve(runner, loads(parallel), COUNT, 16)
    assert time.monotonic() - start < 10.0
    assert gone_within(pids, 5.0)
    assert not torch.distributed.is_initialized()  # the next runner can start


@pytest.mark.parametrize(
    ("main", "kind", "wanted"),
    [
        (fail_in_session, RankFailedError, "rank 1: ValueError: the moon is wrong"),
        (lack_memory, InfeasibleError, "memory: rank 1: MemoryError: no room"),
        (die_at_once, RankFailedError, "rank 1 was killed"),
    ],
)
def test_a_worker_that_fails_is_told_by_its_cause(main, kind, wanted):
    case = (MODELS["gqa"], Parallel(tp=2), OPTIONS)
    world = None
    with pytest.raises(kind, match=wanted):  # noqa: PT012 - either call may notice it
        world = launch(2, main, case)
        DistributedRunner(world, *case)
    assert not torch.distributed.is_initialized()


ORPHAN = """
import sys
from simtool.calibration.executor.starting import start_runner
from tests.calibration.executor.test_distributed import MODELS, OPTIONS, Parallel
if __name__ == "__main__":
    runner = start_runner(MODELS["gqa"], Parallel(tp=2), OPTIONS)
    print(*[child.pid for child in runner._world._children], flush=True)
    sys.stdin.read()
"""


def test_workers_end_when_rank_0_is_killed(tmp_path):
    script = tmp_path / "orphan.py"
    script.write_text(ORPHAN)
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        pids = [int(word) for word in parent.stdout.readline().split()]
        parent.kill()
    assert len(pids) == 1
    assert gone_within(pids, 5.0)


RANK_MAIN = """
from simtool.calibration.executor.distributed import DistributedRunner, serve_worker
from simtool.calibration.executor.world import environment_world
from tests.calibration.executor.test_distributed import COUNT, MODELS, OPTIONS, Parallel, loads, serve
case = MODELS["gqa"], Parallel(tp=2), OPTIONS
with environment_world() as world:
    if world.rank:
        serve_worker(world, *case)
    else:
        runner = DistributedRunner(world, *case)
        print(serve(runner, loads(case[1]), COUNT, 16)[0])
        runner.close()
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_ranks_of_torchruns_environment_meet(tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(RANK_MAIN)
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2"}
    environment["MASTER_PORT"] = str(free_port())
    ranks = [
        subprocess.Popen(
            [sys.executable, script],
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    outputs = [rank.communicate(timeout=60)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    assert outputs[0].strip() == str(whole(MODELS["gqa"], Parallel()))


def test_a_port_in_use_is_told(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
            monkeypatch.setenv(name, str(value))
        with pytest.raises(InputError, match=f"MASTER_PORT={port}: is in use"):
            environment_world()
    monkeypatch.delenv("RANK")
    with pytest.raises(InputError, match="incomplete"):
        environment_world()


def test_a_plan_of_another_size_is_refused_before_anything_starts():
    with pytest.raises(InputError, match="must divide the 4 attention heads"):
        start_runner(MODELS["gqa"], Parallel(tp=3), OPTIONS)
    with pytest.raises(SimtoolError, match="CUDA graphs"):
        start_runner(MODELS["gqa"], Parallel(tp=2), replace(OPTIONS, device="cuda", capture_sizes=(1, 2)))
