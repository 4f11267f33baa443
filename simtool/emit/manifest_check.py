"""Rules that a manifest keeps before it is written; the tests hold core kinds against Kubernetes' own schemas."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from simtool.errors import InputError

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123
_KINDS = {
    "Deployment": "apps/v1",
    "Service": "v1",
    "ConfigMap": "v1",
    "LeaderWorkerSet": "leaderworkerset.x-k8s.io/v1",
    "DynamoGraphDeployment": "nvidia.com/v1beta1",
}


def check_manifest(document: dict[str, Any]) -> None:
    """Raise InputError where a document breaks a rule that its API server would refuse it for."""
    kind = document.get("kind", "")
    if _KINDS.get(kind) != document.get("apiVersion"):
        raise InputError(f"{document.get('apiVersion')} {kind}", "is no kind that simtool writes")
    name = document["metadata"]["name"]
    if not _LABEL.fullmatch(name):
        raise InputError(name, f"is no name for a {kind}", "--served-model-name gives another")
    for spec in _pods(document.get("spec", {})):
        _check_pod(spec, kind)


def _pods(value: Any) -> Iterator[dict[str, Any]]:
    """Every pod spec inside."""
    if isinstance(value, dict):
        if "containers" in value:
            yield value
        for item in value.values():
            yield from _pods(item)
    elif isinstance(value, list):
        for item in value:
            yield from _pods(item)


def _check_pod(spec: dict[str, Any], kind: str) -> None:
    volumes = {volume["name"] for volume in spec.get("volumes", [])}
    for container in spec["containers"]:
        lost = [mount["name"] for mount in container.get("volumeMounts", []) if mount["name"] not in volumes]
        words = [*container.get("command", []), *container.get("args", [])]
        if lost or not container.get("image") or not all(isinstance(word, str) for word in words):
            raise InputError(kind, f"its container {container.get('name')} is malformed", f"volumes lost: {lost}")
