"""The catalogue: every device loads, its numbers are plausible, names are forgiving and errors say what to give."""

import json

import pytest

from simtool.errors import InputError
from simtool.hardware.device import describe_device, device_aliases, device_names, load_device
from simtool.hardware.links import link_names, load_link, scale_out_link, scale_up_link
from simtool.hardware.server import load_server, server_names, usual_server
from simtool.units import GIB, TERA

WANTED = """
v100 v100-32g v100-pcie t4 a10 a40 a6000 a5000 l4 l40s rtx-3090 rtx-4090 rtx-pro-6000 a100-40g a100-80g
a100-pcie-40g a100-pcie-80g h100 h100-pcie h800 h20 h200 b200 gb200 mi300x
"""


@pytest.mark.parametrize("name", device_names())
def test_every_device_is_plausible(name):
    device = load_device(name)
    assert 0.9 < device.usable_bytes / device.hbm_bytes <= 1.0
    assert 5 <= device.idle_w < device.tdp_w <= 1500
    assert 0.2e12 < device.hbm_bytes_per_s < 10e12
    assert device.flops["fp32"] <= device.flops["fp16"]
    if "bf16" in device.flops and "fp8" in device.flops:
        assert device.flops["fp8"] == pytest.approx(2 * device.flops["bf16"], rel=0.02)
    assert all(device.sources.values())
    assert scale_up_link(device).bytes_per_s == pytest.approx(device.scale_up_bytes_per_s, rel=0.06)
    assert scale_out_link(device).kind == "network"
    assert load_link(device.pcie).kind == "pcie"
    assert not device.c2c or load_link(device.c2c)


@pytest.mark.parametrize("name", WANTED.split())
def test_the_devices_people_ask_for_are_there(name):
    assert load_device(name).flops


@pytest.mark.parametrize(
    ("alias", "name"),
    [("H200", "h200"), ("h100", "h100-sxm"), ("A100", "a100-80g"), ("rtx_4090", "rtx-4090"), (" l4 ", "l4")],
)
def test_aliases_in_any_case(alias, name):
    assert load_device(alias).name == name


def test_every_alias_names_a_device_and_no_device():
    names = set(device_names())
    assert set(device_aliases().values()) <= names
    assert not set(device_aliases()) & names


def test_unknown_device_names_the_nearest():
    with pytest.raises(InputError, match=r"h300.*did you mean.*h200"):
        load_device("h300")
    with pytest.raises(InputError, match="known"):
        load_device("")


def test_rates_that_a_device_lacks_are_widened():
    assert load_device("h200").compute_dtype("mxfp4") == "bf16"
    assert load_device("b200").compute_dtype("nvfp4") == "fp4"
    assert load_device("a100").compute_dtype("fp8") == "bf16"
    assert load_device("v100").compute_dtype("fp8") == "fp16"
    assert load_device("h100").peak_flops("bf16") == pytest.approx(989.4 * TERA)
    with pytest.raises(InputError, match="fp7"):
        load_device("h100").peak_flops("fp7")


def test_capacity_is_what_the_driver_reports():
    assert load_device("h200").usable_bytes == pytest.approx(139.81 * GIB)


def test_description_is_json_with_sources():
    facts = describe_device(load_device("l40s"))
    assert json.loads(json.dumps(facts)) == facts
    assert facts["hbm_gb_per_s"] == pytest.approx(864)
    assert facts["energy"]["tdp_w"] == 350


def test_every_link_loads_and_generations_get_faster():
    assert all(load_link(name).bytes_per_s > 0 for name in link_names())
    for family, last in (("nvlink", 5), ("pcie", 6)):
        first = 1 if family == "nvlink" else 3
        rates = [load_link(f"{family}{n}").bytes_per_s for n in range(first, last + 1)]
        assert rates == sorted(rates)
    with pytest.raises(InputError, match="did you mean"):
        load_link("nvlnk4")


def test_every_device_has_a_usual_server():
    for name in device_names():
        server = usual_server(load_device(name))
        assert server.name in server_names()
        assert 1e9 < server.dram_bytes_per_s / max(1, server.cores) < 50e9
        assert server.dram_bytes > load_device(name).hbm_bytes
    with pytest.raises(InputError, match="did you mean"):
        load_server("dgx-h1000")
