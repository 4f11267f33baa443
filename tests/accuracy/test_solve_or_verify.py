"""D4's claims: fitted on half of the rows, the others are met within 2 points; checks are no use at a small cost."""

import numpy as np
import pytest

from benchmarks.reproductions import d4_solve_or_verify as d4
from tests.shared_data import SHARED, needs_shared


@needs_shared
def test_rows_held_out_are_met_within_two_points():
    points = d4.read_points(SHARED / "data")
    base = d4.fit_verifier(points)
    setup = d4.unpack(base, np.array([-0.47, 1.0]))  # rivals as the script fits them, which takes it half a minute
    held = [point for point in points if not point.fitted and (point.checks or point.answers in (2, 8, 512))]
    assert len(held) > 25
    assert max(abs(d4.success(setup, point) - point.success) for point in held) < 2.0


def test_a_table_s_crossovers_are_read_from_it():
    votes = d4.Point(answers=128, checks=0, cost=128, success=55.0)
    few = d4.Point(answers=8, checks=16, cost=264, success=50.0)
    many = d4.Point(answers=32, checks=16, cost=1056, success=56.0)
    at = {point: point.success for point in (votes, few, many)}
    assert d4.crossovers([votes, few, many], at) == pytest.approx((8.25, 1.0))
