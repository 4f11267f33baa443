"""Manifests are what Kubernetes' own schemas (strict: no unknown key) allow; YAML reads back as what was meant."""

import copy
import json
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simtool.emit import Request, emit
from simtool.emit.manifest_check import check_manifest
from simtool.emit.yaml_text import yaml_text
from simtool.errors import InputError
from tests.emit.plans import EXAMPLE, TWO_NODES, with_pool
from tests.emit.test_benchmark import traffic

yaml = pytest.importorskip("yaml")
KUBERNETES = "1.37"
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_yaml_reads_back(value):
    assert yaml.safe_load(yaml_text(value)) == value


WORDS = ["no", "Yes", "null", "1e3", "0x1f", "1:30", "a: b", "- a", "#a", "a\nb", "é", "", "~", "{a}"]


@pytest.mark.parametrize("word", WORDS)
def test_words_that_yaml_could_take_amiss_stay_text(word):
    assert yaml.safe_load(yaml_text({"a": word, word: "b"})) == {"a": word, word: "b"}


def documents(plan, **request):
    return list(yaml.safe_load_all(emit(plan, Request(**request)).files["manifest.yaml"]))


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_core_kinds_keep_kubernetes_schemas(engine):
    validate = pytest.importorskip("kubernetes_validate").validate
    found = documents(EXAMPLE, target="kubernetes", engine=engine)
    assert [document["kind"] for document in found][-2:] == ["Deployment", "Service"]
    for document in found:
        validate(document, KUBERNETES, strict=True)


def test_the_schema_would_find_a_mistake():
    module = pytest.importorskip("kubernetes_validate")
    wrong = documents(EXAMPLE, target="kubernetes")[0]
    wrong["spec"]["template"]["spec"]["containers"][0]["arguments"] = []
    with pytest.raises(module.ValidationError):
        module.validate(wrong, KUBERNETES, strict=True)


@pytest.mark.parametrize("plan", [TWO_NODES, EXAMPLE])
@pytest.mark.parametrize("target", ["kubernetes", "dynamo"])
def test_pods_of_custom_kinds_are_pods(plan, target):
    """A LeaderWorkerSet and a DynamoGraphDeployment have no schema here; the pod templates inside have."""
    validate = pytest.importorskip("kubernetes_validate").validate
    pods = [spec for document in documents(plan, target=target) for spec in pod_specs(document)]
    assert pods
    for spec in pods:
        validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}, KUBERNETES, strict=True)


def pod_specs(value):
    if isinstance(value, dict):
        if "containers" in value:
            yield value
        for item in value.values():
            yield from pod_specs(item)
    elif isinstance(value, list):
        for item in value:
            yield from pod_specs(item)


def test_a_replica_over_nodes_is_a_group_of_pods():
    group, service = documents(TWO_NODES, target="kubernetes")
    template = group["spec"]["leaderWorkerTemplate"]
    assert (group["kind"], template["size"], service["spec"]["selector"]["role"]) == ("LeaderWorkerSet", 2, "leader")
    worker = template["workerTemplate"]["spec"]["containers"][0]
    assert "--headless" in worker["args"]
    assert worker["args"][worker["args"].index("--node-rank") + 1] == "$(LWS_WORKER_INDEX)"
    assert worker["resources"]["limits"] == {"nvidia.com/gpu": "8"}
    assert "readinessProbe" not in worker
    (dynamo,) = documents(TWO_NODES, target="dynamo")
    assert dynamo["spec"]["components"][1]["multinode"] == {"nodeCount": 2}


def test_the_own_checks_find_what_a_server_would():
    (good, _) = documents(EXAMPLE, target="kubernetes")
    check_manifest(good)
    for change in ("name", "kind", "volume", "image"):
        bad = copy.deepcopy(good)
        pod = bad["spec"]["template"]["spec"]
        match change:
            case "name":
                bad["metadata"]["name"] = "Not_A_Label"
            case "kind":
                bad["kind"] = "Deploymnet"
            case "volume":
                pod["volumes"] = []
            case "image":
                pod["containers"][0]["image"] = ""
        with pytest.raises(InputError):
            check_manifest(bad)


NASTY = 'models/it\'s; rm -rf $HOME `id` $(id) "x" #: é'


def test_metacharacters_in_names_reach_the_engine_unchanged():
    script = emit(EXAMPLE, Request(target="vllm", model_path=NASTY)).files["launch.sh"]
    lines = [line for line in script.splitlines() if line.startswith("vllm serve")]
    shown = subprocess.run(
        ["bash", "-c", lines[0].removesuffix("\\").replace("vllm serve", "printf %s", 1)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == NASTY
    found = documents(EXAMPLE, target="kubernetes", model_path=NASTY, served_name="m")
    words = found[0]["spec"]["template"]["spec"]["containers"][0]["command"]
    assert words[2] == NASTY.replace("$(", "$$(")


@pytest.mark.parametrize("target", ["vllm", "sglang", "trtllm", "torchrun"])
@pytest.mark.parametrize(
    "plan", [EXAMPLE, with_pool(EXAMPLE, replicas=1), replace(EXAMPLE, router="least_outstanding")]
)
def test_scripts_are_shell(target, plan):
    if target == "torchrun" and plan.router != "round_robin":
        return
    for name, text in emit(plan, Request(target=target), traffic(num_prompts=4)).files.items():
        if name.endswith(".sh"):
            subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_the_yaml_of_trtllm_is_its_options():
    config = yaml.safe_load(emit(EXAMPLE, Request(target="trtllm")).files["config.yaml"])
    assert config["kv_cache_config"]["enable_block_reuse"] is True
    assert json.dumps(config["scheduler_config"]) == '{"capacity_scheduler_policy": "MAX_UTILIZATION"}'
