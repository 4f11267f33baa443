"""launch.sh: the replicas of one node each in the background, the router before them, and one script for each node."""

from __future__ import annotations

from simtool.emit.command import Command, Value, Variable
from simtool.emit.engine_trtllm import trtllm_config
from simtool.emit.option_table import OptionTable
from simtool.emit.placement import FIRST_PORT, Replica
from simtool.emit.routing import nginx_template, sglang_router_command, uses_sglang_router
from simtool.emit.serving import serving_commands
from simtool.emit.subject import Subject
from simtool.emit.yaml_text import yaml_text


def launch_files(subject: Subject, table: OptionTable) -> dict[str, str]:
    """File name -> text: a script for each node, and what the scripts read. Raises InputError."""
    nodes = sorted({node for replica in subject.replicas for node in replica.nodes})
    several = len(nodes) > 1
    files: dict[str, str] = {}
    if table.engine == "trtllm":
        for number, pool in enumerate(subject.plan.pools):
            files[_config_name(subject, number)] = yaml_text(trtllm_config(pool, table))
    blocks: dict[int, list[str]] = {node: [] for node in nodes}
    for replica in subject.replicas:
        for node, command in zip(replica.nodes, _commands(subject, replica, table, several), strict=True):
            blocks[node].append(f"# {_title(subject, replica, node)}\n{_hidden(replica, command).shell()}")
    if len(subject.replicas) > 1:
        name, text = _router(subject, table, several)
        blocks[nodes[0]].append(text)
        if name:
            files[name] = nginx_template(subject, table, several)
    for node in nodes:
        files[f"launch-node-{node}.sh" if several else "launch.sh"] = _script(subject, table, blocks[node], several)
    return files


def header(subject: Subject, title: str) -> list[str]:
    """The first comment of every file."""
    plan = subject.plan
    lines = [f"# {plan.model if plan.model.isprintable() else subject.model} on {plan.cluster}, for {title}"]
    return [*lines, f"# written by simtool emit; the plan's prices are of {plan.kernel_library}'s kernels"]


def _commands(subject: Subject, replica: Replica, table: OptionTable, several: bool) -> tuple[Command, ...]:
    leader: Value = Variable(name=f"NODE_{replica.nodes[0]}") if several else "127.0.0.1"
    return serving_commands(
        subject,
        subject.plan.pools[replica.pool],
        table,
        port=replica.port if len(subject.replicas) > 1 else FIRST_PORT,
        leader=leader,
        ranks=tuple(str(rank) for rank in range(len(replica.nodes))),
        nodes=len(replica.nodes),
        number=replica.number,
        config=f"$here/{_config_name(subject, replica.pool)}",
    )


def _config_name(subject: Subject, pool: int) -> str:
    return "config.yaml" if len(subject.plan.pools) == 1 else f"config-pool-{pool}.yaml"


def _hidden(replica: Replica, command: Command) -> Command:
    """The command with only the replica's devices in sight."""
    if replica.whole_node:
        return command
    devices = ("CUDA_VISIBLE_DEVICES", ",".join(map(str, replica.devices)))
    return Command(program=command.program, words=command.words, options=command.options, env=(devices, *command.env))


def _title(subject: Subject, replica: Replica, node: int) -> str:
    pool = subject.plan.pools[replica.pool]
    where = f"node {node}, " if len(replica.nodes) > 1 else ""
    return f"replica {replica.number} of {len(subject.replicas)}: {where}{len(replica.devices)} x {pool.device}"


def _router(subject: Subject, table: OptionTable, several: bool) -> tuple[str, str]:
    """(the file it reads, its lines in the script)."""
    if uses_sglang_router(subject, table.engine):
        return "", f"# the router\n{sglang_router_command(subject, several).shell()}"
    if several:
        text = 'envsubst < "$here"/nginx.conf > "$here"/nginx.node.conf\n'
        text += 'nginx -g "daemon off;" -c "$here"/nginx.node.conf'
    else:
        text = 'nginx -g "daemon off;" -c "$here"/nginx.conf'
    return "nginx.conf", f"# the router, on port {FIRST_PORT}\n{text}"


def _script(subject: Subject, table: OptionTable, blocks: list[str], several: bool) -> str:
    lines = ["#!/usr/bin/env bash", *header(subject, table.title)]
    if several:
        lines.append("# export NODE_0, NODE_1, ...: the nodes' addresses, the same in every node's script")
    lines += ["set -euo pipefail", 'here=$(cd "$(dirname "$0")" && pwd)', ""]
    if len(blocks) == 1:
        return "\n".join([*lines, *blocks]) + "\n"
    lines += ["trap 'kill $(jobs -p) 2>/dev/null || true' EXIT  # one that ends takes the others with it", ""]
    return "\n".join([*lines, *(f"{block} &\n" for block in blocks), "wait -n"]) + "\n"
