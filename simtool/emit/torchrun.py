"""simtool's own executor under torchrun: one launch for each replica and node."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simtool.emit.command import Command, Options, Variable
from simtool.emit.option_table import OptionTable
from simtool.emit.placement import Replica
from simtool.emit.subject import Subject
from simtool.errors import InputError
from simtool.hardware.own_cluster import own_cluster
from simtool.plan_file import plan_json
from simtool.traces import trace_lines
from simtool.traces.rows import take
from simtool.workload import Workload

_MODULE = "simtool.calibration.executor"
_RENDEZVOUS_PORT = 29400
_WORKLOAD_HINT = "give the workload's flags, as --num-prompts 40 --request-rate 4"


def torchrun_files(subject: Subject, table: OptionTable, workload: Workload | None) -> dict[str, str]:
    """launch.sh (one a node), the plan of a replica and each replica's requests. Raises InputError."""
    if len(subject.plan.pools) > 1:
        rule = f"{len(subject.plan.pools)} pools, and the executor runs replicas of one"
        raise InputError("pools", rule, "split the plan file")
    if workload is None:
        raise InputError("workload", "is not given, and the executor runs requests of a file", _WORKLOAD_HINT)
    cpu = any(device.kind == "cpu" for device in own_cluster(subject.plan.cluster, subject.plan.profiles).types)
    nodes = sorted({node for replica in subject.replicas for node in replica.nodes})
    replica_pool = replace(subject.plan.pools[0], replicas=1)
    files = {"plan.json": plan_json(replace(subject.plan, pools=(replica_pool,), profiles=()))}
    for number, share in enumerate(_shares(subject, workload)):
        files[f"trace-{number}.jsonl"] = "".join(trace_lines(share))
    for node in nodes:
        blocks = [
            _command(replica, node, table, cpu=cpu).shell() for replica in subject.replicas if node in replica.nodes
        ]
        body = [blocks[0]] if len(blocks) == 1 else [*(f"{block} &" for block in blocks), "wait"]
        lines = ["#!/usr/bin/env bash", f"# {subject.plan.cluster}, {table.title}, written by simtool emit"]
        if len(nodes) > 1:
            lines.append("# export NODE_0, NODE_1, ...: the nodes' addresses, the same in every node's script")
        lines += ["set -euo pipefail", 'here=$(cd "$(dirname "$0")" && pwd)', "", *body]
        files["launch.sh" if len(nodes) == 1 else f"launch-node-{node}.sh"] = "\n".join(lines) + "\n"
    return files


def _command(replica: Replica, node: int, table: OptionTable, *, cpu: bool) -> Command:
    """tp x pp x dp processes in all, one a device; one of a CPU is one thread, which torchrun would warn of."""
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
    if cpu:
        env = (("OMP_NUM_THREADS", "1"),)
    trace, out = f"$here/trace-{replica.number}.jsonl", f"$here/run-{replica.number}"
    return Command(
        program="torchrun",
        words=("torchrun",),
        options=(*options, ("--module", ())),
        env=env,
        tail=(_MODULE, "$here/plan.json", "--trace", trace, "--out", out, *(("--device", "cpu") if cpu else ())),
    ).checked(table)


def _shares(subject: Subject, workload: Workload) -> list[Workload]:
    """The requests of each replica, as a round-robin router deals them out. Raises InputError for what it cannot."""
    count = len(subject.replicas)
    if count == 1:
        return [workload]
    _check_dealt(subject, workload)
    if workload.num_requests < count:
        raise InputError(f"{workload.num_requests} requests", f"are too few for {count} replicas", "more --num-prompts")
    rows = np.arange(workload.num_requests)
    return [take(workload, rows[rows % count == number]) for number in range(count)]


def _check_dealt(subject: Subject, workload: Workload) -> None:
    """Raise InputError where it is not known ahead which replica gets which request, and when."""
    apart = "the executor's replicas run apart under torchrun"
    hint = "simtool execute runs replicas together"
    if workload.max_concurrency:
        rule = f"{apart}, and in a closed loop a request is sent when any of them has finished one"
        raise InputError(f"max_concurrency = {workload.max_concurrency}", rule, hint)
    if len(workload.follows) and np.any(workload.follows >= 0):
        raise InputError("turns", f"{apart}, and a turn is sent when the one before is answered", hint)
    if subject.plan.router != "round_robin":
        rule = f"{apart}, and only round-robin routing can be dealt out ahead"
        raise InputError(f"router {subject.plan.router}", rule, f"--router round_robin, or {hint}")
