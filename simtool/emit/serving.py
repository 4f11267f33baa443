"""The commands that serve one replica: one for each of its nodes, the first leads."""

from __future__ import annotations

from simtool.emit.command import Command, Options, Value, Variable
from simtool.emit.engine_sglang import sglang_environment, sglang_options
from simtool.emit.engine_trtllm import trtllm_options
from simtool.emit.engine_vllm import vllm_environment, vllm_options
from simtool.emit.option_table import OptionTable
from simtool.emit.subject import Subject
from simtool.errors import InputError
from simtool.plan import Pool

_RENDEZVOUS_PORT, _DATA_PARALLEL_PORT = 29500, 13345


def serving_commands(
    subject: Subject,
    pool: Pool,
    table: OptionTable,
    *,
    port: int,
    leader: Value = "127.0.0.1",
    ranks: tuple[Value, ...] = ("0",),
    nodes: int = 1,
    number: int = 0,
    config: str = "",
) -> tuple[Command, ...]:
    """A command for each of `ranks` (a node's number within the replica of `nodes` nodes, as text or as a variable).

    number: the replica's, so that several keep apart. port 0: none is opened. config: TensorRT-LLM's YAML file.
    Raises InputError.
    """
    match table.engine:
        case "vllm":
            words, options, env = _vllm(subject, pool, table)
        case "sglang":
            words, options, env = _sglang(subject, pool, table)
        case _:
            words, options, env = _trtllm(subject, pool, table, config, nodes)
    if port:
        options += [("--host", ("0.0.0.0",)), ("--port", (str(port),))]
    commands = []
    for rank in ranks:
        span = _span(table, pool, nodes, rank, leader, number) if nodes > 1 else []
        command = Command(program=_program(table), words=words, options=tuple(options + span), env=env)
        commands.append(command.checked(table))
    return tuple(commands)


def _program(table: OptionTable) -> str:
    return {"vllm": "vllm serve", "sglang": "sglang.launch_server", "trtllm": "trtllm-serve"}[table.engine]


_Parts = tuple[tuple[str, ...], Options, tuple[tuple[str, str], ...]]


def _vllm(subject: Subject, pool: Pool, table: OptionTable) -> _Parts:
    return ("vllm", "serve", subject.model), vllm_options(subject, pool, table), vllm_environment(pool)


def _sglang(subject: Subject, pool: Pool, table: OptionTable) -> _Parts:
    options: Options = [("--model-path", (subject.model,)), *sglang_options(subject, pool, table)]
    return ("python3", "-m", "sglang.launch_server"), options, sglang_environment(pool)


def _trtllm(subject: Subject, pool: Pool, table: OptionTable, config: str, nodes: int) -> _Parts:
    if nodes > 1:
        rule = f"a replica spans {nodes} nodes, which trtllm-serve does only under an MPI launcher"
        raise InputError("tp x pp x dp", rule, "start it with trtllm-llmapi-launch by hand, or --target vllm")
    if subject.served_name != subject.model:
        raise InputError(subject.served_name, f"{table.title} serves a model under its own name", "leave it out")
    options = trtllm_options(subject, pool, table)
    return ("trtllm-serve", subject.model), [*options, ("--extra_llm_api_options", (config,))], ()


def _span(table: OptionTable, pool: Pool, nodes: int, rank: Value, leader: Value, number: int) -> Options:
    """What joins the nodes of one replica."""
    if table.engine == "sglang":
        return [
            ("--nnodes", (str(nodes),)),
            ("--node-rank", (rank,)),
            ("--dist-init-addr", (_with_port(leader, _RENDEZVOUS_PORT + number),)),
        ]
    follows: Options = [] if rank == "0" else [("--headless", ())]
    if pool.parallel.dp == 1:
        return [
            ("--nnodes", (str(nodes),)),
            ("--node-rank", (rank,)),
            ("--master-addr", (leader,)),
            ("--master-port", (str(_RENDEZVOUS_PORT + number),)),
            *follows,
        ]
    return [*_ranks_span(pool, nodes, rank, leader, number), *follows]


def _ranks_span(pool: Pool, nodes: int, rank: Value, leader: Value, number: int) -> Options:
    """vLLM's data-parallel ranks over nodes: each node starts its own."""
    local, rest = divmod(pool.parallel.dp, nodes)
    if rest:
        rule = f"{pool.parallel.dp} data-parallel ranks cannot be shared out evenly over {nodes} nodes"
        raise InputError("dp", rule, "a multiple of the nodes")
    if isinstance(rank, Variable) and local > 1:
        rule = f"a pod's manifest cannot reckon where the {local} ranks of a node start"
        raise InputError("dp", rule, "one data-parallel rank a node, or --target vllm, which writes a script a node")
    start: Value = rank if isinstance(rank, Variable) else str(int(rank) * local)
    return [
        ("--data-parallel-size-local", (str(local),)),
        ("--data-parallel-start-rank", (start,)),
        ("--data-parallel-address", (leader,)),
        ("--data-parallel-rpc-port", (str(_DATA_PARALLEL_PORT + number),)),
    ]


def _with_port(leader: Value, port: int) -> Value:
    return Variable(name=leader.name, rest=f":{port}") if isinstance(leader, Variable) else f"{leader}:{port}"
