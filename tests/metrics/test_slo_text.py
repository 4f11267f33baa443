"""SLOs as people write them."""

import pytest

from simtool.errors import InputError
from simtool.metrics import Slo, parse_slo


@pytest.mark.parametrize(
    "text", ["ttft:1000,tpot:50", "ttft:1000 tpot:50", "ttft:1s,tpot:50ms", "TTFT:1e3, tpot:0.05s"]
)
def test_ways_to_write_one(text: str) -> None:
    slo = parse_slo(text)
    assert slo.ttft_s == pytest.approx(1.0)
    assert slo.tpot_s == pytest.approx(0.05)
    assert (slo.e2e_s, slo.attainment) == (0.0, 0.99)


def test_end_to_end_and_attainment() -> None:
    assert parse_slo("e2el:2000", attainment=0.9) == Slo(e2e_s=2.0, attainment=0.9)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "no limit"),
        ("ttft", "unknown limit"),
        ("itl:5", "unknown limit; known are ttft, tpot, e2el"),
        ("ttft:", "time in ms"),
        ("ttft:-4", "time in ms"),
        ("ttft:nan", "time in ms"),
        ("ttft:inf", "time in ms"),
        ("ttft:5m", "time in ms"),
        ("ttft:5tokens", "time in ms"),
        ("ttft:0", "above 0"),
        ("ttft:1e999", "above 0 and finite"),
        ("tpot:0.05", "milliseconds.*tpot:0.05s"),
        ("ttft:5,ttft:6", "twice"),
    ],
)
def test_bad_ones(text: str, rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        parse_slo(text)


@pytest.mark.parametrize("attainment", [0.0, 1.1, -1.0, float("nan")])
def test_bad_attainment(attainment: float) -> None:
    with pytest.raises(InputError, match="attainment"):
        parse_slo("ttft:5", attainment)
