"""llm-d: Helm values for its llm-d-modelservice chart, in the shape of aiconfigurator 0.12.0's template."""

from __future__ import annotations

from typing import Any

from simtool.emit.elsewhere import either, routing_targets
from simtool.emit.option_table import OptionTable
from simtool.emit.pod import image_of, pod_devices, resource_name
from simtool.emit.serving import serving_commands
from simtool.emit.subject import Subject
from simtool.errors import InputError

_ENGINE_PORT, _SERVICE_PORT = 8200, 8000  # the chart's routing sidecar stands between them
_ROUND_ROBIN = "--target kubernetes with --router round_robin"
_MODEL_COMMANDS = {"vllm": "vllmServe", "sglang": "sglangServe"}


def llmd_values(subject: Subject, table: OptionTable, image: str = "") -> dict[str, Any]:
    """values.yaml. Raises InputError for what the chart does not deploy."""
    _check(subject, table)
    pool = subject.plan.pools[0]
    _, devices = pod_devices(subject, 0)
    (command,) = serving_commands(subject, pool, table, port=_ENGINE_PORT)
    model = ["--model", subject.model.replace("$(", "$$(")] if table.engine == "vllm" else []
    name = resource_name(subject.served_name)
    labels = {"llm-d.ai/inference-serving": "true", "llm-d.ai/model": name}
    served = {
        "name": table.engine,
        "image": image or image_of(table),
        "modelCommand": _MODEL_COMMANDS[table.engine],
        "args": [*model, *command.arguments()],
        "env": [{"name": key, "value": value} for key, value in command.env],
        "ports": [{"containerPort": _ENGINE_PORT, "name": "metrics", "protocol": "TCP"}],
        "resources": {"limits": {"nvidia.com/gpu": str(devices)}},
        "mountModelVolume": True,
    }
    artifacts = {"name": subject.model, "labels": labels, "uri": f"hf://{subject.model}", "size": "500Gi"}
    parallel = {"tensor": pool.parallel.tp, "data": pool.parallel.dp, "dataLocal": pool.parallel.dp, "workers": 1}
    decode = {"create": True, "replicas": pool.replicas, "parallelism": parallel, "containers": [served]}
    return {
        "multinode": False,
        "modelArtifacts": {**artifacts, "authSecretName": "hf-token-secret", "mountPath": "/model-cache"},
        "accelerator": {"type": "nvidia", "dra": False},
        "routing": {"servicePort": _SERVICE_PORT, "proxy": {"enabled": True, "targetPort": _ENGINE_PORT}},
        "decode": decode,
        "prefill": {"create": False, "replicas": 0},
    }


def _check(subject: Subject, table: OptionTable) -> None:
    if table.engine not in _MODEL_COMMANDS:
        raise InputError(table.engine, "llm-d serves vllm and sglang", "--engine vllm, or --target kubernetes")
    elsewhere = routing_targets(subject, table.engine)
    if len(subject.plan.pools) > 1:
        rule = f"{len(subject.plan.pools)} pools, and one release of the chart deploys one"
        raise InputError("pools", rule, elsewhere or _ROUND_ROBIN)
    if pod_devices(subject, 0)[0] > 1:
        rule = "simtool writes llm-d values for replicas of one node"
        raise InputError("tp x pp x dp", rule, elsewhere or _ROUND_ROBIN)
    if subject.model.startswith("/"):
        raise InputError(subject.model, "llm-d loads models from a hub or a volume claim", "--model-path REPOSITORY")
    if len(subject.replicas) > 1 and subject.plan.router != "prefix_aware":
        rule = f"llm-d's scheduler weighs prefixes and load; it is not {subject.plan.router}"
        raise InputError("router", rule, either("--router prefix_aware", elsewhere))
