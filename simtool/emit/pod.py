"""The pod that serves one replica, or one node of it: container, devices, probes, volumes."""

from __future__ import annotations

import re
from typing import Any

from simtool.emit.command import Command
from simtool.emit.option_table import OptionTable
from simtool.emit.placement import FIRST_PORT
from simtool.emit.subject import Subject
from simtool.plan import Pool

DEVICE_LABEL = "llm-simtool/device"  # with several device types, nodes have to be labelled with the plan's names
CONFIG_FOLDER = "/etc/engine"
_CACHE = "/root/.cache/huggingface"
_IMAGES = {
    "vllm": "vllm/vllm-openai:v{}",
    "sglang": "lmsysorg/sglang:v{}",
    "trtllm": "nvcr.io/nvidia/tensorrt-llm/release:{}",
}


def resource_name(text: str) -> str:
    """The text as a DNS label (RFC 1123), which Kubernetes wants of names."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower().rpartition("/")[2]).strip("-")[:40].strip("-") or "model"


def image_of(table: OptionTable) -> str:
    """The engine's published image of the table's version."""
    return _IMAGES[table.engine].format(table.version)


def pod_devices(subject: Subject, pool_number: int) -> tuple[int, int]:
    """(nodes of a replica, devices it takes in each)."""
    replica = next(replica for replica in subject.replicas if replica.pool == pool_number)
    return len(replica.nodes), len(replica.devices)


def container(
    subject: Subject, command: Command, image: str, devices: int, *, serves: bool = True, config: bool = False
) -> dict[str, Any]:
    """The engine's container. serves: it answers requests and is probed; the other nodes of a replica do not."""
    env: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in command.env]
    secret = {"secretKeyRef": {"name": "hf-token-secret", "key": "HF_TOKEN", "optional": True}}
    env.append({"name": "HF_TOKEN", "valueFrom": secret})
    amount = {"nvidia.com/gpu": str(devices)}
    made: dict[str, Any] = {
        "name": "engine",
        "image": image,
        "command": command.start(),
        "args": command.arguments(),
        "env": env,
        "resources": {"limits": amount, "requests": amount},
    }
    if serves:
        probe = {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 10}
        made["ports"] = [{"name": "http", "containerPort": FIRST_PORT}]
        made["startupProbe"] = {**probe, "failureThreshold": 360}  # an hour to load weights and capture graphs
        made["readinessProbe"] = {**probe, "failureThreshold": 3}
        made["livenessProbe"] = {**probe, "timeoutSeconds": 10, "failureThreshold": 6}
    made["volumeMounts"] = [{"name": "shm", "mountPath": "/dev/shm"}, _model_mount(subject)]
    if config:
        made["volumeMounts"].append({"name": "config", "mountPath": CONFIG_FOLDER})
    return made


def pod_spec(subject: Subject, pool: Pool, made: dict[str, Any], *, config: str = "") -> dict[str, Any]:
    """The pod around the container; a model that is a folder is taken from the node."""
    model: dict[str, Any] = {"name": "model", "emptyDir": {}}
    if subject.model.startswith("/"):
        model = {"name": "model", "hostPath": {"path": subject.model, "type": "Directory"}}
    spec: dict[str, Any] = {"containers": [made]}
    spec["volumes"] = [{"name": "shm", "emptyDir": {"medium": "Memory"}}, model]
    if config:
        spec["volumes"].append({"name": "config", "configMap": {"name": config}})
    if len({pool.device for pool in subject.plan.pools}) > 1:
        spec["nodeSelector"] = {DEVICE_LABEL: pool.device}
    return spec


def _model_mount(subject: Subject) -> dict[str, Any]:
    if subject.model.startswith("/"):
        return {"name": "model", "mountPath": subject.model, "readOnly": True}
    return {"name": "model", "mountPath": _CACHE}
