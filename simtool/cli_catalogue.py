"""`simtool models` and `simtool hardware`: the catalogues, and what is known of one entry."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from simtool.cli_options import Json

ModelName = Annotated[str | None, typer.Argument(help="A catalogue name or the path of a config.json. None: list all.")]
DeviceName = Annotated[
    str | None, typer.Argument(help="A device (h200) or a cluster (8xh200, 4xa100-80g+8xl4). None: list all devices.")
]


def models(model: ModelName = None, json: Json = False) -> int:
    """Parameters (total, active), weight bytes, KV and state bytes per token.

    Example: simtool models path/to/config.json --json
    """
    from simtool.models.catalogue import load_catalogue
    from simtool.models.config import load_architecture
    from simtool.models.description import describe_model
    from simtool.terminal import print_json, print_table

    names = [model] if model else [entry.name for entry in load_catalogue()]
    rows = [describe_model(load_architecture(name)) for name in names]
    if json:
        from simtool.json_text import json_text

        print_json(json_text(rows[0] if model else rows))
        return 0
    if model:
        print_table(("key", "value"), [[key, _cell(value)] for key, value in rows[0].items()], left=2)
        return 0
    heads = ("model", "parameters, B", "active, B", "weights, GB", "KV bytes/token", "layers", "context")
    print_table(heads, [_model_row(row) for row in rows])
    return 0


def hardware(device: DeviceName = None, json: Json = False) -> int:
    """Devices with their rates, memory, links, power and price, each with its source.

    Example: simtool hardware h200 --json
    """
    from simtool.hardware.device import describe_device, device_names, load_device
    from simtool.terminal import print_json, print_table

    if device and "x" in device and device[0].isdigit():
        facts: Any = _cluster_facts(device)
    elif device:
        facts = describe_device(load_device(device))
    else:
        facts = [describe_device(load_device(name)) for name in device_names()]
    if json:
        from simtool.json_text import json_text

        print_json(json_text(facts))
    elif device:
        print_table(("key", "value"), [[key, _cell(value)] for key, value in facts.items()], left=2)
    else:
        heads = ("device", "memory GiB", "HBM GB/s", "bf16 TFLOP/s", "fp8 TFLOP/s", "TDP W", "link", "$/h")
        print_table(heads, [_device_row(row) for row in facts])
    return 0


def _cluster_facts(text: str) -> dict[str, Any]:
    from simtool.hardware.cluster import parse_cluster

    cluster = parse_cluster(text)
    groups = [
        f"{group.nodes} node(s) of {group.devices_per_node} x {group.device.name}, {group.intra.name} inside, "
        f"{group.inter.name} between"
        for group in cluster.groups
    ]
    return {"cluster": cluster.text, "devices": cluster.devices, "groups": groups}


def _model_row(facts: dict[str, Any]) -> list[str]:
    from simtool.report.wording import number

    return [
        str(facts["name"]),
        number(facts["parameters"] / 1e9),
        number(facts["active_parameters"] / 1e9),
        number(facts["weight_bytes"] / 1e9),
        number(facts["kv_bytes_per_token"], 6),
        str(facts["layers"]),
        f"{facts['max_position_embeddings']:,}",
    ]


def _device_row(facts: dict[str, Any]) -> list[str]:
    from simtool.report.wording import number

    rates = facts["dense_tflops"]
    price = facts["price_usd_per_hour"]
    return [
        facts["name"],
        number(facts["hbm_gib"]),
        number(facts["hbm_gb_per_s"], 4),
        *(number(rates[dtype], 4) if dtype in rates else "–" for dtype in ("bf16", "fp8")),
        number(facts["tdp_w"]),
        facts["scale_up"],
        "–" if price is None else f"{price:.2f}",
    ]


def _cell(value: Any) -> str:
    """A value as a table cell."""
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_cell(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_cell(item) for item in value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.6g}" if isinstance(value, float) else str(value)
