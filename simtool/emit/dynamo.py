"""NVIDIA Dynamo: a DynamoGraphDeployment (nvidia.com/v1beta1) of a frontend and a worker component for each pool.

The shape follows the templates in the ai-dynamo 1.6.1 wheel. The operator joins the nodes of a replica itself.
"""

from __future__ import annotations

from typing import Any

from simtool.emit.command import Command
from simtool.emit.elsewhere import caches
from simtool.emit.option_table import OptionTable, load_table
from simtool.emit.pod import pod_devices, pod_spec, resource_name
from simtool.emit.serving import serving_commands
from simtool.emit.subject import Subject
from simtool.errors import InputError
from simtool.plan import Pool

_MODES = {"round_robin": "round-robin", "least_outstanding": "least-loaded", "prefix_aware": "kv"}
# Where a worker tells the router what it has cached: vLLM's does by itself, SGLang's has to be told to (dynamo/sglang).
_SGLANG_EVENTS = '{"publisher":"zmq","topic":"kv-events","endpoint":"tcp://*:5557"}'
_IMAGE = "nvcr.io/nvidia/ai-dynamo/{}-runtime:{}"


def dynamo_manifest(subject: Subject, table: OptionTable, image: str = "") -> list[dict[str, Any]]:
    """The documents of manifest.yaml. Raises InputError."""
    if table.engine not in ("vllm", "sglang"):
        raise InputError(table.engine, "simtool writes Dynamo workers of vllm and sglang", "--engine vllm")
    if subject.plan.router == "prefix_aware" and not caches(subject):
        rule = "Dynamo's KV router follows what workers cache, and the plan's prefix cache is off"
        raise InputError("router", rule, "--enable-prefix-caching, or --router round_robin")
    dynamo = load_table("dynamo")
    image = image or _IMAGE.format(table.engine, dynamo.version)
    components = [_frontend(subject, dynamo, image)]
    components += [_worker(subject, pool, number, table, image) for number, pool in enumerate(subject.plan.pools)]
    return [
        {
            "apiVersion": "nvidia.com/v1beta1",
            "kind": "DynamoGraphDeployment",
            "metadata": {"name": resource_name(subject.served_name)},
            "spec": {"components": components},
        }
    ]


def _frontend(subject: Subject, dynamo: OptionTable, image: str) -> dict[str, Any]:
    command = Command(
        program="dynamo.frontend",
        words=("python3", "-m", "dynamo.frontend"),
        options=(("--router-mode", (_MODES[subject.plan.router],)),),
    ).checked(dynamo)
    main: dict[str, Any] = {"name": "main", "image": image, "envFrom": _secret()}
    main |= {"command": command.start(), "args": command.arguments()}
    return {"name": "Frontend", "type": "frontend", "replicas": 1, "podTemplate": {"spec": {"containers": [main]}}}


def _worker(subject: Subject, pool: Pool, number: int, table: OptionTable, image: str) -> dict[str, Any]:
    nodes, devices = pod_devices(subject, number)
    (command,) = serving_commands(subject, pool, table, port=0)
    model = (
        ["--model", subject.model.replace("$(", "$$(")] if table.engine == "vllm" else []
    )  # SGLang's options name it already
    events: list[str] = []
    if table.engine == "sglang" and subject.plan.router == "prefix_aware":
        table.check(command.program, "--kv-events-config", (_SGLANG_EVENTS,))
        events = ["--kv-events-config", _SGLANG_EVENTS]
    amount = {"nvidia.com/gpu": str(devices)}
    main: dict[str, Any] = {
        "name": "main",
        "image": image,
        "command": ["python3", "-m", f"dynamo.{table.engine}"],
        "args": [*model, *command.arguments(), *events],
        "env": [{"name": name, "value": value} for name, value in command.env],
        "envFrom": _secret(),
        "resources": {"limits": amount, "requests": amount},
    }
    spec = pod_spec(subject, pool, main)
    spec["volumes"] = [volume for volume in spec["volumes"] if volume["name"] == "model"]  # the operator adds /dev/shm
    main["volumeMounts"] = [{"name": "model", "mountPath": subject.model, "readOnly": True}]
    if not subject.model.startswith("/"):
        main["volumeMounts"] = [{"name": "model", "mountPath": "/home/dynamo/.cache/huggingface"}]
    component: dict[str, Any] = {
        "name": "worker" if len(subject.plan.pools) == 1 else f"worker-pool-{number}",
        "type": "worker",
        "replicas": pool.replicas,
        "podTemplate": {"spec": spec},
    }
    if nodes > 1:
        component["multinode"] = {"nodeCount": nodes}
    return component


def _secret() -> list[dict[str, Any]]:
    return [{"secretRef": {"name": "hf-token-secret", "optional": True}}]
