"""Plain Kubernetes: for each pool a Deployment (apps/v1), or a LeaderWorkerSet (v1) over nodes, and one Service."""

from __future__ import annotations

from typing import Any

from simtool.emit.command import Command, Variable
from simtool.emit.elsewhere import either, routing_targets
from simtool.emit.engine_trtllm import trtllm_config
from simtool.emit.option_table import OptionTable
from simtool.emit.placement import FIRST_PORT
from simtool.emit.pod import CONFIG_FOLDER, container, image_of, pod_devices, pod_spec, resource_name
from simtool.emit.serving import serving_commands
from simtool.emit.subject import Subject
from simtool.emit.yaml_text import yaml_text
from simtool.errors import InputError
from simtool.plan import Pool


def kubernetes_manifest(subject: Subject, table: OptionTable, image: str = "") -> list[dict[str, Any]]:
    """The documents of manifest.yaml. Raises InputError, also for a router that a Service is not."""
    if len(subject.replicas) > 1 and subject.plan.router != "round_robin":
        rule = f"a Service spreads connections evenly and has no {subject.plan.router} policy"
        raise InputError("router", rule, either(routing_targets(subject, table.engine), "--router round_robin"))
    name = resource_name(subject.served_name)
    documents: list[dict[str, Any]] = []
    for number, pool in enumerate(subject.plan.pools):
        own = name if len(subject.plan.pools) == 1 else f"{name}-pool-{number}"
        documents += _pool_documents(subject, pool, number, table, (name, own, image or image_of(table)))
    port = {"name": "http", "port": FIRST_PORT, "targetPort": "http"}
    spec = {"selector": {"app": name, "role": "leader"}, "ports": [port]}
    return [*documents, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}]


def _pool_documents(
    subject: Subject, pool: Pool, number: int, table: OptionTable, names: tuple[str, str, str]
) -> list[dict[str, Any]]:
    _, own, _ = names
    nodes, _ = pod_devices(subject, number)
    if nodes > 1:
        return [_leader_worker_set(subject, pool, number, table, names)]
    documents: list[dict[str, Any]] = []
    config = ""
    if table.engine == "trtllm":
        config = f"{own}-config"
        data = {"config.yaml": yaml_text(trtllm_config(pool, table))}
        documents.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": config}, "data": data})
    path = f"{CONFIG_FOLDER}/config.yaml"
    (command,) = serving_commands(subject, pool, table, port=FIRST_PORT, config=path)
    template = _template(subject, pool, number, command, names, config=config)
    labels = template["metadata"]["labels"]
    spec = {"replicas": pool.replicas, "selector": {"matchLabels": labels}, "template": template}
    documents.append({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": own}, "spec": spec})
    return documents


def _leader_worker_set(
    subject: Subject, pool: Pool, number: int, table: OptionTable, names: tuple[str, str, str]
) -> dict[str, Any]:
    """A group of pods a replica; the controller tells each its leader's address and its own number."""
    nodes, _ = pod_devices(subject, number)
    leader, worker = serving_commands(
        subject,
        pool,
        table,
        port=FIRST_PORT,
        leader=Variable(name="LWS_LEADER_ADDRESS"),
        ranks=("0", Variable(name="LWS_WORKER_INDEX")),
        nodes=nodes,
    )
    group = {
        "size": nodes,
        "restartPolicy": "RecreateGroupOnPodRestart",
        "leaderTemplate": _template(subject, pool, number, leader, names),
        "workerTemplate": _template(subject, pool, number, worker, names, role="worker"),
    }
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": {"name": names[1]},
        "spec": {"replicas": pool.replicas, "leaderWorkerTemplate": group},
    }


def _template(
    subject: Subject,
    pool: Pool,
    number: int,
    command: Command,
    names: tuple[str, str, str],
    *,
    config: str = "",
    role: str = "leader",
) -> dict[str, Any]:
    name, own, image = names
    _, devices = pod_devices(subject, number)
    made = container(subject, command, image, devices, serves=role == "leader", config=bool(config))
    labels = {"app": name, "pool": own, "role": role}
    return {"metadata": {"labels": labels}, "spec": pod_spec(subject, pool, made, config=config)}
