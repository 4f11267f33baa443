"""The planner of expert offload: bounds that nothing passes, splits that brute force confirms, honest refusals."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.errors import InfeasibleError, InputError
from simtool.plan import ExpertOffload
from simtool.planners.offload.bound import Bounds
from simtool.planners.offload.case import OffloadCase, OffloadProblem
from simtool.planners.offload.choices import Choices
from simtool.planners.offload.fastest import fastest_offload
from simtool.planners.offload.hits import expected_uses, most_kept, most_pinned
from simtool.planners.offload.least import least_memory
from simtool.planners.offload.split import even_split, pinned_split, split_by_curves, with_rest
from simtool.planners.offload.trial import try_choice
from simtool.simulator.offload.needs import Needs
from tests.offload.making import mistaken, priced, routed, seeds

LAYERS, EXPERTS = 3, 6
WAYS = (
    *(ExpertOffload(policy=name) for name in ("on-demand", "static-cpu", "static-cheaper", "lru", "lfu")),
    ExpertOffload(policy="speculative", window=1),
    ExpertOffload(policy="predicted-path", window=2),
)


def case_of(seed, *, batch=2, steps=12, locality=0.4, right=0.5, **prices) -> OffloadCase:
    """Experts of 10 bytes, 5 bytes beside them."""
    needs = routed(seed, steps=steps, layers=LAYERS, experts=EXPERTS, batch=batch, locality=locality)
    guess = mistaken(needs, seed, EXPERTS, wrong=1 - right)
    uses = np.bincount(needs.objects, minlength=LAYERS * EXPERTS).reshape(LAYERS, EXPERTS)
    return OffloadCase(
        weight_dtype="auto",
        batch=batch,
        layers=LAYERS,
        experts=EXPERTS,
        top_k=2,
        expert_bytes=10.0,
        fixed_bytes=5.0,
        needs=needs,
        uses=uses.astype(np.float64),
        prices=dict.fromkeys((way.policy for way in WAYS), priced(LAYERS, EXPERTS, **prices)),
        guesses={("speculative", 1): guess, ("predicted-path", 2): guess},
    )


def problem_of(*cases, slots=9, ways=WAYS, max_step_s=0.0) -> OffloadProblem:
    room = max(case.fixed_bytes for case in cases) + 10.0 * slots
    return OffloadProblem(cases=cases, ways=ways, hbm_bytes=room / 0.9 + 1e-6, max_step_s=max_step_s)


seconds = st.floats(0.0, 4.0, allow_subnormal=False)


@settings(max_examples=25, deadline=None)
@given(
    seeds,
    st.integers(1, 4),
    st.integers(0, LAYERS * EXPERTS + 4),
    st.floats(0.0, 1.0),
    st.fixed_dictionaries(dict.fromkeys(("dense_s", "first_s", "token_s", "load_s", "cpu_s"), seconds)),
)
def test_no_walk_is_faster_than_its_bound(seed, batch, held, locality, prices):
    """Under every policy and split, with wrong and right predictions, whatever is dear."""
    prices["dense_s"] += 0.01
    case, bounds, choices = case_of(seed, batch=batch, locality=locality, right=locality, **prices), Bounds(), Choices()
    for way in WAYS:
        least = bounds.least_time(case, way.policy, held)
        for choice, _ in choices.of(case, way, held):
            trial = try_choice(case, choice, 0.0)
            assert choice.held <= held
            assert trial.step_s * case.needs.steps >= least.seconds
            assert trial.tokens_per_s <= case.tokens / least.seconds


@settings(max_examples=5, deadline=None)
@given(seeds, st.floats(0.0, 1.0))
def test_more_memory_never_lowers_the_bound(seed, locality):
    case, bounds = case_of(seed, locality=locality), Bounds()
    for way in WAYS:
        found = [bounds.least_time(case, way.policy, slots).seconds for slots in range(case.most_slots + 1)]
        assert all(less >= more * (1 - 1e-8) for less, more in itertools.pairwise(found))
        assert found[0] > found[-1]


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_most_kept_is_what_brute_force_keeps(seed):
    """Of small walks of one layer: over all contents that are held over each visit."""
    needs = routed(seed, steps=5, layers=1, experts=4, batch=1)
    for slots in range(5):
        best = dict.fromkeys(itertools.combinations(range(4), slots), 0)  # contents before a visit -> needs kept
        for step in range(5):
            now = set(needs.objects[needs.starts[step] : needs.starts[step + 1]].tolist())
            after: dict[tuple[int, ...], int] = {}
            for held, kept in best.items():
                kept += len(now & set(held))
                for chosen in itertools.combinations(sorted(now | set(held)), slots):
                    after[chosen] = max(after.get(chosen, 0), kept)
            best = after
        assert most_kept(needs, 4, slots) == max(best.values())


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(0, 8))
def test_pinned_splits_are_those_of_brute_force_and_of_cp_sat(seed, total):
    uses = np.random.default_rng(seed).integers(0, 20, (3, 4)).astype(np.float64)
    split = pinned_split(uses, total)
    curves = np.hstack([np.zeros((3, 1)), np.cumsum(np.sort(uses, axis=1)[:, ::-1], axis=1)])
    best = _brute(curves, range(5), total)
    assert sum(split.slots) == total
    assert split.certificate.objective == best == split.certificate.bound
    assert curves[np.arange(3), split.slots].sum() == best
    assert split_by_curves(curves, range(5), total).certificate.objective == best


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(3, 15))
def test_splits_by_curves_with_any_bends_are_those_of_brute_force(seed, total):
    rng = np.random.default_rng(seed)
    slots = (1, 2, 4, 5)
    curves = np.sort(rng.integers(-5, 30, (3, 4)).astype(np.float64), axis=1)
    split = split_by_curves(curves, slots, total)
    assert split.certificate.objective == _brute(curves, slots, total)
    assert split.certificate.closed
    assert split.certificate.bound >= split.certificate.objective
    assert sum(split.slots) <= total


def _brute(curves, slots, total):
    points = itertools.product(range(len(slots)), repeat=len(curves))
    kept = [chosen for chosen in points if sum(slots[point] for point in chosen) <= total]
    return max(float(curves[np.arange(len(curves)), list(chosen)].sum()) for chosen in kept)


def test_a_split_needs_its_least_slots_and_leaves_none():
    with pytest.raises(InputError, match="at least 3"):
        split_by_curves(np.zeros((3, 2)), (1, 2), 2)
    assert even_split(3, 8, 6) == (3, 3, 2)
    assert even_split(3, 99, 6) == (6, 6, 6)
    assert with_rest((1, 3, 1), 8, 6) == (3, 3, 2)
    assert with_rest((6, 6, 5), 99, 6) == (6, 6, 6)


def test_pins_of_statistics_are_the_chance_that_a_step_needs_them():
    uses = np.array([[30, 10, 0, 0]])
    one = expected_uses(uses, 1, 1)
    assert one.tolist() == [[0.75, 0.25, 0.0, 0.0]]
    assert expected_uses(uses, 1, 2)[0, 0] == 1 - 0.25**2
    assert most_pinned(routed(1, layers=1, experts=4), 4, 4) == len(routed(1, layers=1, experts=4).objects)


def test_the_fastest_is_the_best_of_all_walks_and_its_gap_is_told():
    problem = problem_of(case_of(3, batch=1), case_of(3, batch=4))
    found = fastest_offload(problem)
    every = []
    for case in problem.cases:
        for way in WAYS:
            for choice, _ in Choices().of(case, way, problem.room(case)):
                every.append(try_choice(case, choice, 0.0).tokens_per_s)
    assert found.best.tokens_per_s >= max(every)
    assert found.best.tokens_per_s in every or found.best.choice.held < problem.room(problem.cases[0])
    assert found.best.tokens_per_s <= found.bound_tokens_per_s
    assert found.gap == pytest.approx(1 - found.best.tokens_per_s / found.bound_tokens_per_s)
    assert found.best.device_bytes <= problem.hbm_bytes
    assert found.trials[0] is found.best
    assert [one.tokens_per_s for one in found.bounds] == sorted((o.tokens_per_s for o in found.bounds), reverse=True)


def test_a_device_that_is_slower_than_the_cpu_is_not_filled():
    """Experts take 3 s on the device and 1.6 on the CPU beside it: part of the room is left."""
    problem = problem_of(case_of(3, first_s=3.0, token_s=0.0), slots=18, ways=(ExpertOffload(policy="static-cpu"),))
    found = fastest_offload(problem)
    assert found.best.choice.held < 18
    assert found.best.tokens_per_s > min(one.tokens_per_s for one in found.trials if one.choice.held == 18)
    least = least_memory(problem, found.best.tokens_per_s)
    assert least.best.device_bytes <= found.best.device_bytes


def test_with_room_for_all_the_gap_closes():
    ways = (ExpertOffload(policy="on-demand"), ExpertOffload(policy="lru"))
    found = fastest_offload(problem_of(case_of(5), slots=20, ways=ways))
    assert found.best.loads_per_token == found.best.cpu_per_token == 0.0
    assert found.gap == pytest.approx(0.0, abs=1e-6)
    assert found.bounds[0].binds == "GPU"


def test_a_latency_limit_takes_the_larger_batch_away():
    problem = problem_of(case_of(3, batch=1), case_of(3, batch=4))
    free = fastest_offload(problem)
    assert free.best.choice.batch == 4
    tight = fastest_offload(replace(problem, max_step_s=0.9 * free.best.step_s))
    assert tight.best.step_s <= 0.9 * free.best.step_s
    assert tight.best.tokens_per_s <= free.best.tokens_per_s
    with pytest.raises(InfeasibleError, match=r"latency: the (GPU|CPU|link) alone") as caught:
        fastest_offload(replace(problem, max_step_s=1.0))  # dense parts alone take 3 s
    assert caught.value.constraint == "latency"


def test_nothing_is_planned_where_not_even_the_rest_fits():
    with pytest.raises(InfeasibleError, match="all but the experts") as caught:
        fastest_offload(problem_of(case_of(1), slots=-1))
    assert caught.value.constraint == "memory"
    with pytest.raises(InfeasibleError, match="no policy has the slots"):
        fastest_offload(problem_of(case_of(1), slots=2, ways=(ExpertOffload(policy="lru"),)))


@settings(max_examples=10, deadline=None)
@given(seeds, st.floats(0.3, 0.95))
def test_the_least_memory_reaches_the_target_and_less_than_its_bound_cannot(seed, share):
    problem, bounds = problem_of(case_of(seed), slots=18), Bounds()
    target = share * fastest_offload(problem, bounds).best.tokens_per_s
    found = least_memory(problem, target, bounds)
    assert found.best.tokens_per_s >= target
    assert found.bound_bytes <= found.best.device_bytes <= problem.hbm_bytes
    assert 0.0 <= found.gap < 1.0
    below = replace(problem, hbm_bytes=found.bound_bytes - 1.0)
    if below.room(problem.cases[0]) >= 0:
        assert fastest_offload(below, bounds).bound_tokens_per_s < target


def test_a_target_beyond_the_bound_names_what_binds():
    problem = problem_of(case_of(2), slots=4, ways=(ExpertOffload(policy="lru"),))
    reached = fastest_offload(problem)
    with pytest.raises(InfeasibleError, match="the link lets no configuration pass") as caught:
        least_memory(problem, 1.01 * reached.bound_tokens_per_s)
    assert caught.value.constraint == "speed"
    between = 0.5 * (reached.best.tokens_per_s + reached.bound_tokens_per_s)
    with pytest.raises(InfeasibleError, match="no proof beyond"):
        least_memory(problem, between)
    with pytest.raises(InputError, match="above 0"):
        least_memory(problem, 0.0)


def test_what_is_no_problem_is_refused():
    case = case_of(0)
    with pytest.raises(InputError, match="is not planned"):
        problem_of(case, ways=(ExpertOffload(policy="zero-copy"),))
    with pytest.raises(InputError, match="must not be empty"):
        OffloadProblem(cases=(), ways=WAYS, hbm_bytes=1.0)


def test_transfers_in_the_order_of_need_make_a_step_shortest():
    """What the walk does: of all orders of loads on one link none ends sooner, computing each layer when it has all."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        layer = np.sort(rng.integers(0, 3, 5))
        dense_s = rng.random(3)
        ends = {}
        for order in itertools.permutations(range(5)):
            arrive, now = np.cumsum(np.ones(5)), 0.0
            for number in range(3):
                late = [arrive[place] for place, item in enumerate(order) if layer[item] == number]
                now = max([now + dense_s[number], *late])
            ends[order] = now
        assert ends[tuple(range(5))] == min(ends.values())


def test_needs_are_shared_by_cases_of_a_batch():
    """So that hits are reckoned once for all dtypes: a bound depends on the needs, not on which case asks."""
    case = case_of(4)
    twin = replace(case, weight_dtype="fp8", expert_bytes=5.0)
    bounds = Bounds()
    assert bounds.least_time(case, "lru", 9) == bounds.least_time(twin, "lru", 9)
    assert isinstance(case.needs, Needs)
