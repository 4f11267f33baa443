"""A profile describes its device where the catalogue lacks it: the device has a name, is priced by its own profiles
alone, and says what nobody knows of it."""

import json
import math
from itertools import count

import pytest

import simtool as st
from simtool.errors import InputError
from simtool.hardware.collectives import collective_model
from simtool.hardware.fitted import load_cost_model
from simtool.hardware.own_cluster import own_cluster
from simtool.hardware.own_profiles import load_own_profiles, own_devices, profile_files
from simtool.hardware.price import price_per_hour
from simtool.hardware.profile_file import profile_bytes
from simtool.simulator.priced_cluster import priced_cluster
from tests.hardware.own_profile import CPU_MACHINE, GPU_MACHINE, all_reduces, write_small
from tests.hardware.test_cost import column, gemm

SLUG = "cpu-a-cpu-1t"


@pytest.fixture
def written(tmp_path):
    """Writes profiles into the test's folder, each under its own name; of a described CPU unless said otherwise."""
    names = count()

    def write(**more):
        more = {"device": SLUG, "library": "torch", "dtype": "fp32", "machine": CPU_MACHINE} | more
        return write_small(tmp_path / f"own{next(names)}.json", **more)

    return write


def cluster_with(text, *paths):
    return own_cluster(text, profile_files(*paths))


def model_with(text, *paths, library="torch"):
    group = cluster_with(text, *paths).group_of()
    return load_cost_model(group.device, group, library, load_own_profiles(profile_files(*paths)))


def test_processes_of_a_cpu_share_its_memory(written):
    path = written()
    for processes in (1, 2, 4):
        (group,) = cluster_with(f"{processes}xcpu", path).groups
        assert (group.device.name, group.nodes, group.devices_per_node) == ("cpu", 1, processes)
        assert group.device.usable_bytes == 16e9 / processes
    assert cluster_with(f"2x{SLUG}", path).devices_by_type == {"cpu": 2}
    assert cluster_with("2xCPU", path).group_of(SLUG).device.architecture == SLUG


def test_a_gpu_has_its_memory_and_its_own_name(written):
    device = cluster_with("2xgtx-1080-ti", written(device="gtx-1080-ti", machine=GPU_MACHINE)).groups[0].device
    assert (device.usable_bytes, device.sm_count, device.l2_bytes, device.boost_hz) == (11e9, 28, 2.75e6, 1.6e9)
    assert (device.compute_capability, device.kind, device.catalogued) == ("6.1", "gpu", False)


def test_the_peaks_are_what_was_reached(written):
    path = written()
    device = cluster_with("1xcpu", path).groups[0].device
    points = load_own_profiles(profile_files(path))[0].fits["gemm", "fp32"]
    assert device.peak_flops("bf16") == device.flops["fp32"] == points.peak_flops
    assert device.hbm_bytes_per_s == points.bandwidth_bytes_per_s
    assert "reached" in device.sources["compute"]


def test_what_nobody_measured_is_unknown(written):
    device = cluster_with("1xcpu", written()).groups[0].device
    assert math.isnan(device.tdp_w)
    assert math.isnan(device.idle_w)
    with pytest.raises(InputError, match=r"no public price.*cpu=USD"):
        price_per_hour(device)
    assert price_per_hour(device, {"cpu": 0.5}) == 0.5


@pytest.mark.parametrize("text", ["5xcpu", "2x2xcpu", "8xcpu"])
def test_a_larger_machine_than_the_measured_one_needs_a_description(written, text):
    with pytest.raises(InputError, match=r"larger than the machine that was measured: it has 4 CPU.*cluster file"):
        cluster_with(text, written())


def test_a_cluster_file_describes_a_larger_one(written, tmp_path):
    path, file = written(), tmp_path / "c.toml"
    file.write_text('[[groups]]\ndevice = "cpu"\nnodes = 2\ndevices_per_node = 8\ninter_link = "roce-100g"\n')
    cluster = cluster_with(str(file), path)
    assert (cluster.devices, cluster.groups[0].device.usable_bytes) == (16, 2e9)
    file.write_text('[[groups]]\ndevice = "cpu"\nnodes = 2\n')
    with pytest.raises(InputError, match=r"no known network.*inter_link"):
        cluster_with(str(file), path)


def test_names_are_told_where_one_is_wrong(written):
    with pytest.raises(InputError, match=r"not in the device catalogue .*did you mean cpu"):
        cluster_with("2xcpus", written())
    with pytest.raises(InputError, match=r"needs the --profile that measured it"):
        st.parse_cluster("2xcpu")


def test_of_two_cpus_the_second_keeps_its_long_name(written):
    other = written(device="cpu-other-1t", machine=CPU_MACHINE | {"device_memory_bytes": 8e9})
    cluster = cluster_with("1xcpu+1xcpu-other-1t", written(), other)
    assert [group.device.hbm_bytes for group in cluster.groups] == [16e9, 8e9]
    assert [d.name for d in own_devices(load_own_profiles(profile_files(written(), written())))] == ["cpu"]


def test_one_profile_describes_the_device_of_another(written):
    without = written(families=(), collectives=(all_reduces(1e-9, 2, "gloo"),))
    with pytest.raises(InputError, match=r"which it does not describe.*calibrate anew"):
        profile_files(without)
    assert cluster_with("2xcpu", without, written()).devices_by_type == {"cpu": 2}


def test_an_older_profile_is_refused_with_a_hint(written):
    with pytest.raises(InputError, match=r"'cpu-a-cpu-1t', which is not in the device catalogue.*calibrate anew"):
        profile_files(written(machine={}))
    assert "measured_device" not in json.loads(written(device="h200").read_text())


def test_a_wrong_description_is_refused(written):
    path = written()
    table = json.loads(path.read_text())
    for wrong in ({"kind": "tpu"}, {"memory_bytes": 0}, {"flops": {}}, {"count": 0}, {"watts": 3}):
        changed = table | {"measured_device": table["measured_device"] | wrong}
        path.write_bytes(profile_bytes(changed, packed=False))
        with pytest.raises(InputError, match="is not a kernel profile: measured_device"):
            profile_files(path)


def test_it_is_priced_by_its_own_profiles_alone(written):
    path = written()
    model = model_with("2xcpu", path)
    own = model.price(gemm(column(64), 4096, 4096, "fp32"))
    assert (own.provenance, own.source) == ("interpolated", f"cpu/torch/gemm/fp32 [{path}]")
    for dtype in ("bf16", "fp8"):
        other = model.price(gemm(column(64), 4096, 4096, dtype))
        assert (other.provenance, other.source) == ("roofline", "default roofline law")
    library = model_with("2xcpu", path, library="vllm").price(gemm(column(64), 4096, 4096, "fp32"))
    assert library.provenance == "transferred"


def test_it_prices_no_other_device(written):
    path = written(dtype="bf16")
    operator = gemm(column(64), 4096, 4096, "bf16")
    with_it, without = (model_with("1xt4", *paths).price(operator) for paths in ((path,), ()))
    assert with_it.source == without.source
    assert with_it.seconds == without.seconds


def test_collectives_are_its_own_or_a_formula(written):
    path, size = written(collectives=(all_reduces(1e-9, 2, "gloo"),)), 2.0**20
    curves = load_own_profiles(profile_files(path))[0].curves
    model = collective_model(cluster_with("4xcpu", path).group_of(), "torch", curves)
    measured = model.price("all_reduce", size, 2)
    assert measured.seconds == pytest.approx(10e-6 + 1e-9 * size, rel=0.02)
    assert (measured.provenance, measured.source) == ("interpolated", f"gloo all_reduce on cpu [{path}]")
    assert model.price("all_reduce", size, 4).provenance == "transferred"
    assert model.price("all_reduce", size, 4).seconds > measured.seconds
    for kind in ("all_gather", "reduce_scatter", "all_to_all", "send_recv"):
        unknown = model.price(kind, column(0.0, size), 2)
        assert unknown.provenance == "roofline"
        assert unknown.source.endswith(f"on loopback: {kind} was not measured")
        assert unknown.seconds[0] == 0 < unknown.lower[1] < unknown.seconds[1] < unknown.upper[1]


def test_a_cpu_beside_a_gpu_says_nothing_of_its_host(written):
    files = profile_files(written())
    alone, mixed = (priced_cluster(own_cluster(text, files), "torch", files)[1] for text in ("2xcpu", "2xcpu+1xl4"))
    assert (alone.gap_s, alone.eager_launch_s) == (0.0, 0.0)
    assert mixed.gap_s > 0
