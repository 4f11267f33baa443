"""Nano-batches in the order of a schedule: the same tokens, the order that was asked, and refusals of all else."""

import random
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the executor runs on torch")

from simtool.calibration.executor.batch import Slot, StepBatch  # noqa: E402
from simtool.calibration.executor.calls import ATTENTION, beside, calls_of, run_through  # noqa: E402
from simtool.calibration.executor.decoder import DecoderLayer  # noqa: E402
from simtool.calibration.executor.options import ExecutorOptions  # noqa: E402
from simtool.calibration.executor.runner import TorchRunner  # noqa: E402
from simtool.calibration.executor.scheduled import scheduled_parts, stage_turns, turns_of  # noqa: E402
from simtool.errors import InputError  # noqa: E402
from simtool.models.layer_chain import layer_chain, layer_kinds  # noqa: E402
from simtool.models.lowering_shard import make_shard  # noqa: E402
from simtool.overlaps import STOCK  # noqa: E402
from simtool.plan import ExpertOffload, Parallel  # noqa: E402
from simtool.step_schedule import KindSchedule, Launch, StepSchedule, load_schedule, save_schedule  # noqa: E402
from tests.calibration.executor.models import MODELS  # noqa: E402
from tests.calibration.executor.serving import BLOCK, prompts, requests, serve  # noqa: E402

BLOCKS, COUNT = 64, 6
OPTIONS = ExecutorOptions(num_blocks=BLOCKS, block_size=BLOCK)


def made(arch, nano_batches=2, seed=0, attention=("attention_decode",)):
    """A schedule of launches in any order that the operators allow, one a nano-batch, the layers of each kind."""
    rng = random.Random(seed)
    shard = make_shard(arch, Parallel(), 0)
    kinds = []
    for kind in layer_kinds(shard):
        chain = layer_chain(shard, kind, np.array([1.0]))
        before, after = ([link.name for link in part] for part in (chain.before, chain.after))
        main = [name for name in (*before, *attention, *after) if not name.startswith("shared_")]
        shared = [name for name in after if name.startswith("shared_")]
        lists = {batch: _merged(main, shared, kind.count, rng) for batch in range(nano_batches)}
        launches, last = [], {}
        while any(lists.values()):
            batch = rng.choice([batch for batch, left in lists.items() if left])
            layer, name = lists[batch].pop(0)
            waits = (last[batch],) if batch in last else ()
            last[batch] = len(launches)
            launches.append(
                Launch(layer=layer, operators=(name,), nano_batches=(batch,), stream=rng.randrange(3), after=waits)
            )
        kinds.append(KindSchedule(layers=kind.count, operators=(*main, *shared), launches=tuple(launches)))
    degrees = {"tp": 1, "pp": 1, "dp": 1, "ep": 1}
    return StepSchedule(model="tiny", batch="decode:4x8", nano_batches=nano_batches, kinds=tuple(kinds), **degrees)


def _merged(main, shared, layers, rng):
    """(layer, operator) of a nano-batch: shared experts anywhere between the router and the layer's end."""
    found = []
    for layer in range(layers):
        row, first = list(main), main.index("router_topk") + 1 if shared else 0
        for name in shared:
            first = rng.randint(first, len(row))
            row.insert(first, name)
            first += 1
        found += [(layer, name) for name in row]
    return found


def outputs_of(options, arch):
    return serve(TorchRunner(arch, options), [requests(prompts(5), COUNT, BLOCKS)], COUNT, 16)[0]


@pytest.fixture
def recorded(monkeypatch):
    """Every call of a layer as it is run: (the layer's object, rows of the nano-batch, call)."""
    seen, own = [], DecoderLayer.calls

    def calls(self, hidden, step):
        inner, rows = own(self, hidden, step), tuple(step.inputs.ids.tolist())
        try:
            offered = next(inner)
            while True:
                wanted = yield offered
                seen.append((self, id(step.inputs), rows, wanted))
                offered = inner.send(wanted)
        except StopIteration as ended:
            return ended.value

    monkeypatch.setattr(DecoderLayer, "calls", calls)
    return seen


@pytest.mark.parametrize("name", ["gqa", "moe", "grouped_moe"])
@pytest.mark.parametrize("nano_batches", [2, 3])
def test_tokens_are_those_without(name, nano_batches):
    arch = MODELS[name]
    plain = outputs_of(OPTIONS, arch)
    for seed in range(3):
        assert outputs_of(replace(OPTIONS, schedule=made(arch, nano_batches, seed)), arch) == plain
    both = made(arch, nano_batches, 9, attention=("attention_prefill", "attention_decode"))
    assert outputs_of(replace(OPTIONS, schedule=both), arch) == plain


@pytest.mark.parametrize("name", ["mla", "mla_direct"])
def test_latent_attention_too(name):
    arch = MODELS[name]
    schedule = made(arch, 2, 1, attention=("mla_decode",))
    assert outputs_of(replace(OPTIONS, schedule=schedule), arch) == outputs_of(OPTIONS, arch)
    assert outputs_of(replace(OPTIONS, schedule=made(arch, 2, 2, attention=("kv_b", "mla_prefill"))), arch)


def test_the_order_of_calls_is_the_schedule_s(recorded):
    arch = MODELS["moe"]
    schedule = made(arch, 2, 3)
    runner = TorchRunner(arch, replace(OPTIONS, schedule=schedule))
    batch = StepBatch(
        decodes=tuple(
            Slot(request=n, tokens=np.array([n + 1]), context=0, blocks=np.array([n]), samples=True) for n in range(4)
        )
    )
    runner.submit(0, [batch])
    runner.collect(0)
    layers = runner._worker.decoder.layers
    names = {rows: number for number, rows in enumerate(dict.fromkeys(sorted(rows for _, _, rows, _ in recorded)))}
    assert list(names) == [(1, 2), (3, 4)]
    seen = [(layers.index(layer), names[rows], call) for layer, _, rows, call in recorded]
    shard, wanted, first = make_shard(arch, Parallel(), 0), [], 0
    for kind, own in zip(schedule.kinds, layer_kinds(shard), strict=True):
        call = {**calls_of(shard, own), **dict.fromkeys(ATTENTION, "attention")}
        every = [(first + one.layer, one.nano_batches[0], call[one.operators[0]]) for one in kind.launches]
        wanted += list(dict.fromkeys(every))  # a call is where the first of its operators is
        first += kind.layers
    assert seen == wanted
    assert seen != sorted(seen)  # it is no order of layers or of nano-batches


def test_turns_wait_across_streams_alone():
    kind = KindSchedule(
        layers=2,
        operators=("a", "b"),
        launches=tuple(
            Launch(layer=layer, operators=(name,), nano_batches=batches, stream=stream, after=after)
            for layer, name, batches, stream, after in (
                (0, "a", (0, 1), 0, ()),
                (0, "b", (0,), 1, (0,)),
                (0, "b", (1,), 0, (0, 1)),
                (1, "a", (0, 1), 0, (1, 2)),
                (1, "b", (0, 1), 1, (3,)),
            )
        ),
    )
    turns = turns_of(kind, {"a": "x", "b": "y"}, 1)
    assert [(turn.nano_batch, turn.call, turn.stream, turn.after) for turn in turns] == [
        (0, "x", 0, ()), (1, "x", 0, ()), (0, "y", 1, (0, 1)), (1, "y", 0, (2,))
    ]  # fmt: skip
    assert len(turns_of(kind, {"a": "x", "b": "x"}, 2)) == 4


def slot(request, new, blocks, context=0):
    return Slot(request=request, tokens=np.arange(new), context=context, blocks=np.array(blocks), samples=True)


def test_other_steps_run_whole():
    schedule = made(MODELS["gqa"])
    decodes = tuple(slot(n, 1, [9, n], context=BLOCK) for n in range(4))  # all read page 9
    cut = scheduled_parts([StepBatch(decodes=decodes)], schedule, BLOCK)
    assert [len(part[0].decodes) for part in cut] == [2, 2]
    for batch in (
        StepBatch(decodes=decodes[:1]),
        StepBatch(prefills=(slot(7, 5, [1, 2]), slot(8, 5, [3, 4]))),
        StepBatch(decodes=decodes, prefills=(slot(7, 5, [11, 12]),)),
        StepBatch(decodes=(*decodes[:3], slot(3, 1, [0], context=1))),  # the page that slot 0 writes is 0
    ):
        assert scheduled_parts([batch], schedule, BLOCK) == [[batch]]


def test_what_is_not_the_plan_s_is_refused():
    arch, schedule = MODELS["moe"], made(MODELS["moe"])
    stage_turns(schedule, arch, Parallel(), 0)
    with pytest.raises(InputError, match="these degrees"):
        stage_turns(schedule, arch, Parallel(tp=2), 0)
    with pytest.raises(InputError, match="more of a kind"):
        stage_turns(replace(schedule, kinds=schedule.kinds[:1]), arch, Parallel(), 0)
    with pytest.raises(InputError, match="differ between"):
        stage_turns(replace(schedule, kinds=schedule.kinds[::-1]), replace(arch, layers=arch.layers[:1]), Parallel(), 0)
    loose = [replace(launch, after=()) for launch in schedule.kinds[0].launches]
    backwards = replace(schedule.kinds[0], launches=tuple(loose[::-1]))
    wrong = replace(schedule, kinds=(backwards, *schedule.kinds[1:]))
    with pytest.raises(InputError, match="cannot follow"):
        outputs_of(replace(OPTIONS, schedule=wrong), arch)
    short = replace(schedule.kinds[0], launches=tuple(one for one in loose if one.operators != ("o",)))
    with pytest.raises(InputError, match="cannot follow"):
        outputs_of(replace(OPTIONS, schedule=replace(schedule, kinds=(short, *schedule.kinds[1:]))), arch)
    for changes in ({"overlap": STOCK["two-batch"]}, {"record_routing": True}, {"offload": ExpertOffload(policy="lru", slots=2)}):
        with pytest.raises(InputError):
            replace(OPTIONS, schedule=schedule, **changes)


def test_a_file_comes_back_or_is_refused(tmp_path):
    schedule = made(MODELS["moe"])
    path = tmp_path / "s.json"
    save_schedule(schedule, path)
    assert load_schedule(path) == schedule
    text = path.read_text()
    for old, new in (
        ('"simtool_schedule": 1', '"simtool_schedule": 2'),
        ('"nano_batches": [0]', '"nano_batches": [7]'),
        ('"stream": 0', '"stream": -1'),
        ('"after": []', '"after": [999999]'),
        ('"layer": 0', '"layer": true'),
        ('"schedule"', '"other"'),
        ("{", "[", ),
    ):  # fmt: skip
        assert old in text
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(InputError):
            load_schedule(path)


def test_a_branch_goes_on_when_asked():
    def calls(*names):
        done = []
        for name in names:
            yield (name,)
            done.append(name)
        return done

    assert run_through(beside(calls("a", "b"), calls("x"))) == (["a", "b"], ["x"])
    both = beside(calls("a", "b"), calls("x"))
    assert [next(both), both.send("a"), both.send("x")] == [("x", "a"), ("x", "b"), ("b",)]
