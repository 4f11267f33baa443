"""The benchmark of memory against speed: its lines hold for a small question, with what does not fit told."""

import re

import pytest

from benchmarks.offload import memory_speed
from simtool.plan import ExpertOffload

WAYS = (ExpertOffload(policy="static-cpu"), ExpertOffload(policy="lru"))


@pytest.fixture(scope="module")
def found():
    return memory_speed.solver("mixtral-8x22b", "a100-80g", steps=8, ways=WAYS)


def test_a_line_for_each_dram_and_kind_with_bounds_above_what_is_found(found, monkeypatch):
    monkeypatch.setattr(memory_speed, "DRAM_GB", (512,))
    monkeypatch.setattr(memory_speed, "SHARES", (0.5, 1.0))
    lines = list(memory_speed.rows(found, "mixtral-8x22b", "a100-80g"))
    assert len(lines) == 2
    for line in lines:
        pairs = re.findall(r"([\d.]+)(?:i4)? \(<= +([\d.]+)\)", line)
        speeds, bounds = zip(*((float(speed), float(bound)) for speed, bound in pairs), strict=True)
        assert list(speeds) == sorted(speeds)
        assert list(bounds) == sorted(bounds)
        assert all(speed <= bound for speed, bound in zip(speeds, bounds, strict=True))
    assert [line.split()[3] for line in lines] == ["CPU", "loads"]
    assert all(re.search(r"GB \(>= [\d.]+, gap \d+%\)", line) for line in lines)


def test_a_target_out_of_reach_is_told_with_the_speed_that_is_proven(found, monkeypatch):
    monkeypatch.setattr(memory_speed, "TARGET_TOK_S", 1e4)
    cell = memory_speed.least_cell(found, found.held_by(512))
    assert re.fullmatch(r"not reached: no configuration passes [\d.]+ tok/s", cell)


def test_experts_that_host_memory_does_not_hold_are_told(found, monkeypatch):
    monkeypatch.setattr(memory_speed, "DRAM_GB", (16,))
    (line,) = memory_speed.rows(found, "mixtral-8x22b", "a100-80g")
    assert "do not fit into host memory" in line
    both = {case.weight_dtype for case in found.held_by(1024).cases}
    assert both == {"auto", "int4"}
    assert {case.weight_dtype for case in found.held_by(100).cases} == {"int4"}
