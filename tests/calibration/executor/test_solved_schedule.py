"""From a solver's schedule by a file to the executor: launches are those of the plan, tokens those without."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="the executor runs on torch")
pytest.importorskip("ortools", reason="the planner solves with OR-Tools")

from simtool.calibration.executor.runner import TorchRunner  # noqa: E402
from simtool.errors import InputError  # noqa: E402
from simtool.hardware.cluster import parse_cluster  # noqa: E402
from simtool.plan import Overlap, Parallel, Pool, Scheduler  # noqa: E402
from simtool.planners.schedule.kernels import KernelLayer  # noqa: E402
from simtool.planners.schedule.launches import step_schedule  # noqa: E402
from simtool.planners.schedule.overlap import plan_overlap  # noqa: E402
from simtool.planners.schedule.progress import Effort  # noqa: E402
from simtool.planners.schedule.step_plan import SolvedLayer, SolvedStep  # noqa: E402
from simtool.simulator.batch_text import parse_batch  # noqa: E402
from simtool.simulator.overlap.kernel import device_resources  # noqa: E402
from simtool.simulator.overlap.layer_time import layer_time  # noqa: E402
from simtool.simulator.overlap.step import step_prices  # noqa: E402
from simtool.simulator.priced_cluster import priced_cluster  # noqa: E402
from simtool.step_schedule import load_schedule, save_schedule  # noqa: E402
from tests.calibration.executor.models import DENSE, GQA, MOE, model  # noqa: E402
from tests.calibration.executor.serving import prompts, requests, serve  # noqa: E402
from tests.calibration.executor.test_scheduled import BLOCKS, COUNT, OPTIONS  # noqa: E402

BATCH = "decode:64x256"


def solved(arch, batches):
    """Each kind of layer planned in so many nano-batches, whether it is worth it or not."""
    hardware, _ = priced_cluster(parse_cluster("1xh100"), "vllm")
    pool = Pool(device=next(iter(hardware)), scheduler=Scheduler(max_num_seqs=64))
    prices = step_prices(arch, pool, hardware, parse_batch(BATCH))
    return SolvedStep(layers=tuple(planned(price, count) for price, count in zip(prices, batches, strict=True)))


def planned(price, count):
    layer = KernelLayer(price=price, resources=device_resources(price.hardware.device), grain=0.3)
    problem = layer.problem([1 / count] * count)
    plan = plan_overlap([problem], Effort(limit=0.02))
    return SolvedLayer(
        plan=plan,
        batches=count,
        events=True,
        problem=problem,
        schedule=plan.schedule,
        planned_s=plan.schedule.period_s,
        time=layer_time(price, Overlap(), price.hardware, price.kind),
        simulated_s={},
    )


@pytest.mark.parametrize(("mlps", "batches"), [([DENSE, DENSE], (2,)), ([DENSE, MOE, MOE], (1, 3))])
def test_a_solved_schedule_runs(tmp_path, mlps, batches):
    arch = model(GQA, mlps, dtype="bf16")
    step = solved(arch, batches)
    schedule = step_schedule(step, arch.name, BATCH, Parallel())
    save_schedule(schedule, tmp_path / "s.json")
    assert load_schedule(tmp_path / "s.json") == schedule
    assert schedule.nano_batches == max(batches)
    for kind, layer in zip(schedule.kinds, step.layers, strict=True):
        first = [launch for launch in kind.launches if launch.layer == 0]
        names = [layer.problem.operations[placed.operation].name for placed in layer.schedule.placed]
        assert ["+".join(launch.operators) for launch in first] == names
    tiny = model(GQA, mlps)
    plain, follows = (
        serve(TorchRunner(tiny, options), [requests(prompts(5), COUNT, BLOCKS)], COUNT, 16)[0]
        for options in (OPTIONS, replace(OPTIONS, schedule=schedule))
    )
    assert follows == plain


def test_kinds_in_unlike_numbers_of_nano_batches_are_refused():
    arch = model(GQA, [DENSE, MOE], dtype="bf16")
    with pytest.raises(InputError, match="2 and 3"):
        step_schedule(solved(arch, (2, 3)), arch.name, BATCH, Parallel())
