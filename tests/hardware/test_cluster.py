"""Clusters from text and from files."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.errors import InputError
from simtool.hardware.cluster import parse_cluster, read_cluster


@pytest.mark.parametrize(
    ("text", "layout"),
    [
        ("8xh200", [("h200", 1, 8)]),
        ("1xl4", [("l4", 1, 1)]),
        ("64xh100", [("h100-sxm", 8, 8)]),
        ("12xh100", [("h100-sxm", 1, 8), ("h100-sxm", 1, 4)]),
        ("2x8xH100", [("h100-sxm", 2, 8)]),
        ("4x4xa100", [("a100-80g", 4, 4)]),
        ("4xa100-80g+8xl4", [("a100-80g", 1, 4), ("l4", 1, 8)]),
        (" 4xa100-80g + 2x8xl4 ", [("a100-80g", 1, 4), ("l4", 2, 8)]),
        ("144xgb200", [("gb200", 2, 72)]),
    ],
)
def test_text(text, layout):
    groups = parse_cluster(text).groups
    assert [(g.device.name, g.nodes, g.devices_per_node) for g in groups] == layout


@settings(deadline=None)
@given(count=st.integers(1, 5000))
def test_no_device_is_lost(count):
    cluster = parse_cluster(f"{count}xh100")
    assert cluster.devices == count
    assert cluster.devices_by_type == {"h100-sxm": count}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0xh200", "has no devices"),
        ("0x8xh200", "has no devices"),
        ("8h200", 'did you mean "8xh200"'),
        ("8 h200", 'did you mean "8xh200"'),
        ("8xh300", "did you mean"),
        ("", "4xa100-80g"),
        ("8xh200+", "is not a cluster"),
        ("-1xh200", "is not a cluster"),
        ("1.5xh200", "is not a cluster"),
        ("99999999xh200", "more than"),
        ("missing.toml", "cannot be read"),
    ],
)
def test_bad_text_is_one_clear_error(text, says):
    with pytest.raises(InputError) as error:
        parse_cluster(text)
    assert says in str(error.value)


def test_span_is_nodes_and_devices_in_a_node():
    cluster = parse_cluster("64xh100")
    assert [cluster.span(n) for n in (1, 8, 9, 16, 64)] == [(1, 1), (1, 8), (2, 8), (2, 8), (8, 8)]
    assert parse_cluster("4xa100+8xl4").span(8, "l4") == (1, 8)
    with pytest.raises(InputError, match="do not fit"):
        cluster.span(65)
    with pytest.raises(InputError, match="not in the cluster"):
        cluster.span(2, "l4")


def test_links_default_to_the_device(tmp_path):
    group = parse_cluster("16xh100").groups[0]
    assert (group.intra.name, group.inter.name, group.nics) == ("nvlink4", "ndr", 8)
    assert parse_cluster("2x16xa100").groups[0].intra.kind == "pcie"  # no NVSwitch joins 16


def test_file_overrides_links(tmp_path):
    path = tmp_path / "cluster.toml"
    path.write_text(
        '[[groups]]\ndevice = "a40"\nnodes = 2\ndevices_per_node = 4\nintra_link = "nvlink3-bridge"\n'
        'inter_gb_per_s = 1.2\nnics_per_node = 1\n[[groups]]\ndevice = "t4"\n'
    )
    first, second = parse_cluster(str(path)).groups
    assert (first.devices, first.intra.name, first.inter.bytes_per_s, first.nics) == (8, "nvlink3-bridge", 1.2e9, 1)
    assert (second.device.name, second.nodes, second.devices_per_node) == ("t4", 1, 8)


@pytest.mark.parametrize(
    "text",
    [
        "[[groups]]\n",
        "",
        "not toml [",
        '[[groups]]\ndevice = "h200"\ncolour = 1\n',
        '[[groups]]\ndevice = "h200"\nnodes = 0\n',
        '[[groups]]\ndevice = "h200"\ninter_gb_per_s = nan\n',
        '[[groups]]\ndevice = "h201"\n',
        '[[groups]]\ndevice = "h200"\nintra_link = "string"\n',
    ],
)
def test_bad_files_are_one_clear_error(tmp_path, text):
    path = tmp_path / "cluster.toml"
    path.write_text(text)
    with pytest.raises(InputError):
        read_cluster(path)
