"""Runs of the example models as the executor records them, on a made-up device, and ways to damage their files."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from simtool.calibration.executor.execution_file import save_execution
from simtool.calibration.executor.job import make_job
from simtool.calibration.executor.run_job import HostClock, run_job
from simtool.files import output_folder
from simtool.plan import Parallel
from tests.calibration.executor.fake_runner import FakeRunner
from tests.calibration.executor.test_run_job import plan
from tests.validation.executions import small_workload

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
VALUES = (
    0,
    -1,
    1,
    2.5,
    1e300,
    -1e300,
    1e18,
    2**31,
    2**64,
    10**400,
    float("nan"),
    float("inf"),
    None,
    True,
    "x",
    [],
    {},
)
DTYPES = (np.float16, np.float32, np.uint8, np.int8, np.complex64, np.bool_, np.str_, np.object_, np.longdouble)


def record(model, folder, **pool):
    """A run of `examples/MODEL` in `folder`."""
    asked = plan()
    pools = tuple(replace(one, **{"replicas": 1, **pool}) for one in asked.pools)
    asked = replace(asked, model=str(EXAMPLES / model / "config.json"), pools=pools)
    job = make_job(
        asked, replace(small_workload(12, rate=400.0), input_tokens=np.arange(20, 32, dtype=np.int32)), device="cpu"
    )
    runners = [FakeRunner(spec.dp, spec.num_blocks, spec.block_size) for spec in job.engines]
    execution = run_job(job, runners, seed=5, clock=HostClock(read=lambda: 0.0), environment={"device": "none"})
    with output_folder(folder) as building:
        save_execution(execution, building)
    return folder


def record_all(home):
    """A dense model, and a mixture over two data-parallel ranks."""
    two = Parallel(dp=2, ep=2)
    return [record("small-dense", home / "dense"), record("small-moe", home / "moe", parallel=two)]


def copied(run, folder):
    """A copy to damage."""
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(run, folder))


def with_columns(run, file, **changes):
    """The run with columns of an npz changed: name = a function of the column, or None to leave it out."""
    with np.load(run / file) as archive:
        columns = {name: archive[name] for name in archive.files}
    for name, change in changes.items():
        column = columns.pop(name)
        if change is not None:
            columns[name] = change(column)
    np.savez(run / file, **columns)
    return run


def damage(run, rng: random.Random):
    """One random change to one of the run's files; in words."""
    return rng.choice((_column, _column, _column, _json, _bytes))(run, rng)


def _column(run, rng):
    file = rng.choice(("requests.npz", "schedule.npz"))
    with np.load(run / file) as archive:
        name = rng.choice(sorted(archive.files))
    value, dtype, place = rng.choice(VALUES[:8] + VALUES[10:12]), rng.choice(DTYPES), rng.random()
    kind = rng.randrange(7)
    with np.errstate(all="ignore"):
        match kind:
            case 0:
                with_columns(run, file, **{name: None})
            case 1:
                with_columns(run, file, **{name: lambda column: column.astype(dtype)})
            case 2:
                with_columns(
                    run, file, **{name: lambda column: column[: len(column) // 2] if column.ndim else column[None]}
                )
            case 3:
                with_columns(run, file, **{name: lambda column: column[..., None]})
            case 4:
                with_columns(run, file, **{name: lambda column: column[::-1] if column.ndim else -column - 1})
            case _:
                with_columns(run, file, **{name: lambda column: _put(column, place, float(value))})
    return f"{file} {name} {kind} {value} {dtype}"


def _put(column, place, value):
    column = column.astype(np.float64)
    column[(int(place * len(column)),) if column.ndim and len(column) else ...] = value
    return column


def _json(run, rng):
    file = rng.choice(("plan.json", "execution.json", "trace.jsonl"))
    lines = (run / file).read_text().splitlines() if file == "trace.jsonl" else [(run / file).read_text()]
    number = rng.choice((0, rng.randrange(len(lines))))
    document = json.loads(lines[number])
    inner, key = document, rng.choice(sorted(document))
    while inner[key] and isinstance(inner[key], dict | list) and rng.random() < 0.8:
        inner = inner[key]
        key = rng.choice(sorted(inner)) if isinstance(inner, dict) else rng.randrange(len(inner))
    told = f"{file} {key}"
    inner[key] = rng.choice(VALUES)
    lines[number] = json.dumps(document)
    (run / file).write_text("\n".join(lines))
    return f"{told} {lines[number]}"


def _bytes(run, rng):
    path = run / rng.choice(("plan.json", "execution.json", "trace.jsonl", "requests.npz", "schedule.npz"))
    content = bytearray(path.read_bytes())
    match rng.randrange(3):
        case 0:
            content = content[: rng.randrange(len(content))]
        case 1:
            depth = rng.choice((500, 950, 1100, 100_000))
            content = b'{"a":' * depth + b"1" + b"}" * depth
        case _:
            for _ in range(5):
                content[rng.randrange(len(content))] = rng.randrange(256)
    path.write_bytes(content)
    return f"bytes of {path.name}"
