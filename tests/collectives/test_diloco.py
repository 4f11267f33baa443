"""DiLoCo among peers that come and go."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.errors import InputError
from simtool.simulator.collectives.diloco import Diloco, PeerEvent, simulate_diloco
from simtool.simulator.collectives.ring_seconds import ring_seconds
from tests.collectives.star import mesh

FOUR = (0, 1, 2, 3)


def setup(**changes):
    values = {"peers": FOUR, "step_s": dict.fromkeys(range(6), 1.0), "inner_steps": 10, "rounds": 5}
    return Diloco(**{**values, **changes})


def eight(ring):
    return 8.0


def test_synchronous_rounds_show_all_of_the_all_reduce():
    run = simulate_diloco(setup(), eight)
    assert run.elapsed_s == pytest.approx(5 * 18)
    assert run.exposed_s == dict.fromkeys(FOUR, 40.0)
    assert run.steps_per_s == pytest.approx(4 * 50 / 90)
    assert run.staleness_steps == 0


@pytest.mark.parametrize("reduce_s", [0.5, 8.0, 10.0, 14.0])
def test_an_all_reduce_hides_where_it_fits_the_inner_steps(reduce_s):
    """Exposed: what exceeds H inner steps, a round, and all of the last one, which has no steps behind it."""
    run = simulate_diloco(setup(overlap=True), lambda ring: reduce_s)
    exposed = 4 * max(0.0, reduce_s - 10.0) + reduce_s
    assert run.exposed_s == pytest.approx(dict.fromkeys(FOUR, exposed))
    assert run.elapsed_s == pytest.approx(50 + exposed)
    assert run.staleness_steps == 10


def test_everyone_waits_for_the_slowest():
    run = simulate_diloco(setup(step_s={0: 1.0, 1: 1.0, 2: 1.0, 3: 2.0}), eight)
    assert run.elapsed_s == pytest.approx(5 * 28)
    assert run.exposed_s[0] == pytest.approx(5 * 18)
    assert run.exposed_s[3] == pytest.approx(5 * 8)


def test_a_failing_peer_aborts_the_all_reduce_and_the_others_do_it_again():
    """Fails 3 s into the first all-reduce: 3 s lost, 2 s until all know, then 8 s among three."""
    events = [PeerEvent(at_s=13.0, peer=2, kind="fail")]
    run = simulate_diloco(setup(detect_s=2.0), eight, events=events)
    first = run.rounds[0]
    assert (first.attempts, first.ring, first.end_s) == (2, (0, 1, 3), pytest.approx(10 + 3 + 2 + 8))
    assert all(r.ring == (0, 1, 3) and r.attempts == 1 for r in run.rounds[1:])
    assert run.inner_steps == {0: 50, 1: 50, 2: 10, 3: 50}


def test_a_peer_that_fails_between_is_missed_after_a_while():
    run = simulate_diloco(setup(detect_s=2.0), eight, events=[PeerEvent(at_s=5.0, peer=2, kind="fail")])
    assert (run.rounds[0].start_s, run.rounds[0].ring, run.rounds[0].attempts) == (12.0, (0, 1, 3), 1)
    assert run.elapsed_s == pytest.approx(5 * 18 + 2)


def test_leaving_and_joining():
    events = [PeerEvent(at_s=1.0, peer=1, kind="leave"), PeerEvent(at_s=20.0, peer=5, kind="join")]
    run = simulate_diloco(setup(), eight, events=events)
    assert [r.ring for r in run.rounds] == [FOUR, (0, 2, 3), *[(0, 2, 3, 5)] * 3]
    assert run.inner_steps[1] == 10
    assert run.inner_steps[5] == 30
    assert run.elapsed_s == pytest.approx(5 * 18)


def test_the_last_peer_needs_no_network():
    events = [PeerEvent(at_s=11.0, peer=peer, kind="fail") for peer in (1, 2, 3)]
    run = simulate_diloco(setup(), eight, events=events)
    assert run.rounds[0].end_s == pytest.approx(11.0)
    assert run.rounds[-1].ring == (0,)


def test_order_and_network_come_from_outside():
    """Peer 1 fails: the ring of the others is asked for, and takes what the topology gives it."""
    rates = np.full((4, 4), 1e9)
    rates[0, 2] = rates[2, 0] = 1e8
    seconds = ring_seconds(mesh(rates), 1e9)
    events = [PeerEvent(at_s=10.1, peer=1, kind="fail")]
    run = simulate_diloco(setup(rounds=2), seconds, order=lambda peers: tuple(reversed(peers)), events=events)
    assert run.rounds[0].ring == (3, 2, 0)
    assert run.rounds[1].end_s - run.rounds[1].start_s == pytest.approx(4 / 3 * 10)


@given(
    st.booleans(), st.lists(st.tuples(st.floats(0, 80), st.integers(0, 5), st.sampled_from(["fail", "leave", "join"])))
)
@settings(max_examples=150, deadline=None)
def test_rounds_end_whatever_happens(overlap, happenings):
    events = [PeerEvent(at_s=at, peer=peer, kind=kind) for at, peer, kind in happenings]
    run = simulate_diloco(setup(overlap=overlap, detect_s=1.5), lambda ring: 2.0 * len(ring), events=events)
    ends = [r.end_s for r in run.rounds]
    assert ends == sorted(ends)
    assert len(ends) <= 5
    assert len(ends) == 5 or any(kind in ("fail", "leave") for _, _, kind in happenings)
    assert all(sorted(set(r.ring)) == sorted(r.ring) and r.ring for r in run.rounds)
    assert all(0 <= steps <= 50 and steps % 10 == 0 for steps in run.inner_steps.values())
    assert all(0 <= wait <= run.elapsed_s for wait in run.exposed_s.values())
    again = simulate_diloco(setup(overlap=overlap, detect_s=1.5), lambda ring: 2.0 * len(ring), events=events)
    assert again == run


def test_bad_setups_are_refused():
    for bad in ({"peers": ()}, {"inner_steps": 0}, {"rounds": 0}, {"step_s": {0: 1.0}}, {"detect_s": float("nan")}):
        with pytest.raises(InputError):
            simulate_diloco(setup(**bad), eight)
    with pytest.raises(InputError):
        simulate_diloco(setup(), eight, events=[PeerEvent(at_s=-1.0, peer=0, kind="fail")])
