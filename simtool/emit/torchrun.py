"""simtool's own executor under torchrun: one launch for each replica and node."""

from __future__ import annotations

from simtool.emit.command import Command, Options, Variable
from simtool.emit.option_table import OptionTable
from simtool.emit.placement import Replica
from simtool.emit.subject import Subject
from simtool.errors import InputError
from simtool.plan_file import plan_json

_MODULE = "simtool.calibration.executor"
_RENDEZVOUS_PORT = 29400


def torchrun_files(subject: Subject, table: OptionTable) -> dict[str, str]:
    """launch.sh (one a node) and the plan that it runs. Raises InputError."""
    if len(subject.plan.pools) > 1:
        rule = f"{len(subject.plan.pools)} pools, and the executor runs replicas of one"
        raise InputError("pools", rule, "split the plan file")
    nodes = sorted({node for replica in subject.replicas for node in replica.nodes})
    files = {"plan.json": plan_json(subject.plan)}
    for node in nodes:
        blocks = [
            _command(subject, replica, node, table).shell() for replica in subject.replicas if node in replica.nodes
        ]
        body = [blocks[0]] if len(blocks) == 1 else [*(f"{block} &" for block in blocks), "wait"]
        lines = ["#!/usr/bin/env bash", f"# {subject.plan.cluster}, {table.title}, written by simtool emit"]
        if len(nodes) > 1:
            lines.append("# export NODE_0, NODE_1, ...: the nodes' addresses, the same in every node's script")
        lines += ["set -euo pipefail", 'here=$(cd "$(dirname "$0")" && pwd)', "", *body]
        files["launch.sh" if len(nodes) == 1 else f"launch-node-{node}.sh"] = "\n".join(lines) + "\n"
    return files


def _command(subject: Subject, replica: Replica, node: int, table: OptionTable) -> Command:
    """tp x pp x dp processes in all, one a device."""
    options: Options = [("--nproc-per-node", (str(len(replica.devices)),))]
    if len(replica.nodes) == 1:
        options.append(("--standalone", ()))
    else:
        leader = Variable(name=f"NODE_{replica.nodes[0]}", rest=f":{_RENDEZVOUS_PORT + replica.number}")
        options += [
            ("--nnodes", (str(len(replica.nodes)),)),
            ("--node-rank", (str(replica.nodes.index(node)),)),
            ("--rdzv-backend", ("c10d",)),
            ("--rdzv-endpoint", (leader,)),
        ]
    env = () if replica.whole_node else (("CUDA_VISIBLE_DEVICES", ",".join(map(str, replica.devices))),)
    out = "$here/executor" if len(subject.replicas) == 1 else f"$here/executor-{replica.number}"
    return Command(
        program="torchrun",
        words=("torchrun",),
        options=(*options, ("--module", ())),
        env=env,
        tail=(_MODULE, "$here/plan.json", "--out", out),
    ).checked(table)
