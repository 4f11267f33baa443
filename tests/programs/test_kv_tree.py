"""KV trees: what is read against a walk over iterations and leaves, and segments freed once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.errors import InputError
from simtool.simulator.programs.kv_ledger import KvLedger
from simtool.simulator.programs.kv_reads import kv_reads
from simtool.simulator.programs.kv_tree import kv_tree


@st.composite
def trees(draw):
    parent, tokens, start, end = [], [], [], []
    for row in range(draw(st.integers(1, 12))):
        above = draw(st.integers(-1, row - 1))
        first = draw(st.integers(-3, 4)) if above < 0 else end[above] + draw(st.integers(1, 4))
        last = first + draw(st.integers(-1, 6))
        parent.append(above)
        start.append(first)
        end.append(last)
        tokens.append(last - first + 1 + draw(st.integers(0, 20)))
    return kv_tree(parent, tokens, start, end)


def walked(tree, at):
    """live, unique, path and longest tokens of one iteration, leaf by leaf."""
    read, total, live = {}, 0, 0
    for row in range(len(tree.parent)):
        if not tree.start[row] <= at <= tree.end[row]:
            continue
        live += 1
        step = row
        while step >= 0:
            read[step] = int(tree.tokens[step] - (tree.end[step] - at if step == row else 0))
            total += read[step]
            step = tree.parent[step]
    return live, sum(read.values()), total, max(read.values(), default=0)


@settings(max_examples=150, deadline=None)
@given(trees(), st.integers(0, 30))
def test_reads_are_those_of_a_walk_over_leaves(tree, iterations):
    found = kv_reads(tree, iterations)
    columns = np.array([found.live, found.unique_tokens, found.path_tokens, found.longest_tokens]).T
    assert columns.tolist() == [list(walked(tree, at)) for at in range(1, iterations + 1)]


@settings(max_examples=50, deadline=None)
@given(trees())
def test_sharing_never_reads_more_and_chains_read_alike(tree):
    found = kv_reads(tree, int(tree.end.max(initial=1)) if tree.end.max(initial=1) > 0 else 0)
    assert (found.unique_tokens <= found.path_tokens).all()
    alone = found.live <= 1
    assert (found.unique_tokens[alone] == found.path_tokens[alone]).all()


@pytest.mark.parametrize(
    ("columns", "rule"),
    [
        (([1, -1], [1, 1], [1, 1], [1, 1]), "does not come before"),
        (([-1, 0], [1, 1], [1, 1], [1, 1]), "starts before its parent"),
        (([-1], [1], [1], [2]), "fewer tokens"),
        (([-1], [1], [2], [0]), "ends before"),
        (([-1], [1, 2], [2], [1]), "one length"),
    ],
)
def test_a_tree_that_breaks_a_rule_is_refused(columns, rule):
    with pytest.raises(InputError, match=rule):
        kv_tree(*columns)


def test_too_many_iterations_are_refused():
    with pytest.raises(InputError, match="iterations"):
        kv_reads(kv_tree([-1], [1], [1], [1]), 1 << 30)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["fork", "append", "release"]), st.integers(0, 40)), max_size=60))
def test_all_tokens_are_freed_once(moves):
    ledger = KvLedger()
    held, written, freed = [ledger.begin(7)], 7, 0
    forked = set()
    for move, number in moves:
        if not held:
            break
        segment = held[number % len(held)]
        if move == "fork":
            held.append(ledger.fork(segment))
            forked.add(segment)
        elif move == "release":
            held.remove(segment)
            freed += ledger.release(segment)
        elif segment not in forked:
            ledger.append(segment, number)
            written += number
        assert ledger.held_tokens == written - freed
    for segment in held:
        freed += ledger.release(segment)
    assert freed == written
    assert ledger.held_tokens == 0
    assert ledger.peak_tokens <= written


def test_a_prefix_stays_while_a_fork_lives():
    ledger = KvLedger()
    root = ledger.begin(100)
    left, right = ledger.fork(root), ledger.fork(root)
    ledger.append(left, 10)
    ledger.append(right, 20)
    assert ledger.references(root) == 3
    assert ledger.path_tokens(right) == 120
    assert ledger.release(root) == 0
    assert ledger.release(left) == 10
    assert ledger.release(right) == 120
    assert ledger.peak_tokens == 130


def test_what_is_not_held_cannot_be_used():
    ledger = KvLedger()
    root = ledger.begin(1)
    fork = ledger.fork(root)
    with pytest.raises(InputError, match="forked"):
        ledger.append(root, 1)
    with pytest.raises(InputError, match="0 or more"):
        ledger.append(fork, -1)
    ledger.release(fork)
    for use in (ledger.fork, ledger.release, ledger.path_tokens):
        with pytest.raises(InputError, match="not held"):
            use(fork)
    with pytest.raises(InputError, match="not held"):
        ledger.fork(9)
