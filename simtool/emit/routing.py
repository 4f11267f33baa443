"""The router before several replicas: nginx, which any engine takes, or SGLang's own."""

from __future__ import annotations

from collections.abc import Sequence

from simtool.emit.command import Command, Value, Variable
from simtool.emit.elsewhere import either, routing_targets
from simtool.emit.option_table import OptionTable, load_table
from simtool.emit.placement import FIRST_PORT
from simtool.emit.subject import Subject
from simtool.errors import InputError

_SGLANG = {"round_robin": "round_robin", "prefix_aware": "cache_aware"}
_ROUTER = "sglang_router.launch_router"


def uses_sglang_router(subject: Subject, engine: str) -> bool:
    """SGLang's router has round robin and a cache-aware policy, but none that counts every replica's requests."""
    return engine == "sglang" and subject.plan.router in _SGLANG


def sglang_router_command(subject: Subject, several_nodes: bool) -> Command:
    """`python3 -m sglang_router.launch_router` before all replicas."""
    urls = tuple(_url(*address) for address in _addresses(subject, several_nodes))
    return Command(
        program=_ROUTER,
        words=("python3", "-m", "sglang_router.launch_router"),
        options=(
            ("--worker-urls", urls),
            ("--policy", (_SGLANG[subject.plan.router],)),
            ("--host", ("0.0.0.0",)),
            ("--port", (str(FIRST_PORT),)),
        ),
    ).checked(load_table("sglang-router"))


def nginx_template(subject: Subject, table: OptionTable, several_nodes: bool) -> str:
    """nginx's configuration; ${NODE_k} are left for envsubst. Raises InputError for a policy that nginx lacks."""
    if subject.plan.router == "prefix_aware":
        rule = f"neither {table.title} nor nginx routes by the prompt's prefix"
        raise InputError("router", rule, either(routing_targets(subject, table.engine), "--router round_robin"))
    method = ["    least_conn;"] if subject.plan.router == "least_outstanding" else []
    servers = [f"    server {_nginx_name(address)};" for address in _addresses(subject, several_nodes)]
    lines = ["events {}", "http {", "  upstream replicas {", *method, *servers, "  }", "  server {"]
    lines += [
        f"    listen {FIRST_PORT};",
        "    client_max_body_size 0;",
        "    location / {",
        "      proxy_pass http://replicas;",
        "      proxy_http_version 1.1;",
        '      proxy_set_header Connection "";',
        "      proxy_buffering off;  # tokens are streamed",
        "      proxy_read_timeout 1h;",
        "    }",
        "  }",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _addresses(subject: Subject, several_nodes: bool) -> Sequence[tuple[Value, int]]:
    """Where each replica listens."""
    return [
        (Variable(name=f"NODE_{replica.nodes[0]}") if several_nodes else "127.0.0.1", replica.port)
        for replica in subject.replicas
    ]


def _url(host: Value, port: int) -> Value:
    if isinstance(host, Variable):
        return Variable(name=host.name, rest=f":{port}", before="http://")
    return f"http://{host}:{port}"


def _nginx_name(address: tuple[Value, int]) -> str:
    host, port = address
    return f"${{{host.name}}}:{port}" if isinstance(host, Variable) else f"{host}:{port}"
