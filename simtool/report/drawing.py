"""The plan drawn: nodes, GPUs, and the shard that each GPU holds. Inline SVG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape

from simtool.hardware.cluster import Cluster
from simtool.plan import Plan, Pool
from simtool.report.style import CATEGORICAL

_GPU, _GAP, _PAD, _HEAD = 96, 10, 14, 26
_MAX_NODES = 16  # drawn; the rest are counted in words
_WIDTH = 1080


@dataclass(frozen=True, slots=True)
class Shard:
    """What one GPU holds. `replica` counts over all pools."""

    pool: int
    replica: int
    lines: tuple[str, ...]


def plan_drawing(plan: Plan, cluster: Cluster, stage_layers: Mapping[int, tuple[str, ...]]) -> str:
    """The figure and its legend as HTML."""
    placed = place(plan, cluster, stage_layers)
    nodes = [(group.device.name, group.devices_per_node) for group in cluster.groups for _ in range(group.nodes)]
    boxes, x, y, row_height, widest, first = [], 0, 0, 0, 0, 0
    for number, (device, count) in enumerate(nodes[:_MAX_NODES]):
        across = min(count, 8)
        width = 2 * _PAD + across * _GPU + (across - 1) * _GAP
        height = _HEAD + 2 * _PAD + -(-count // across) * (_GPU + _GAP) - _GAP
        if x and x + width > _WIDTH:
            x, y, row_height = 0, y + row_height + 18, 0
        boxes.append(_node(number, device, placed[first : first + count], x, y, width, height))
        first, x, row_height, widest = first + count, x + width + 18, max(row_height, height), max(widest, x + width)
    total = y + row_height
    label = f"{plan.devices} of {cluster.devices} GPUs in use"
    svg = (
        f'<svg viewBox="-1 -1 {widest + 2} {total + 2}" width="{widest + 2}" role="img" aria-label="{label}">'
        + "".join(boxes) + "</svg>"
    )  # fmt: skip
    more = len(nodes) - _MAX_NODES
    rest = f'<p class="say">… and {more:,} more nodes, not drawn.</p>' if more > 0 else ""
    return f'<div class="panel drawing">{svg}{rest}{_legend(plan)}</div>'


def place(plan: Plan, cluster: Cluster, stage_layers: Mapping[int, tuple[str, ...]]) -> list[Shard | None]:
    """The shard of each GPU in cluster order (None: idle). Replicas take GPUs of their type side by side."""
    slots: list[Shard | None] = [None] * cluster.devices
    free: dict[str, list[int]] = {}
    at = 0
    for group in cluster.groups:
        for name in {group.device.name, *group.device.aliases}:
            free.setdefault(name, []).extend(range(at, at + group.devices))
        at += group.devices
    replica = 0
    for number, pool in enumerate(plan.pools):
        for _ in range(pool.replicas):
            for device, lines in _shards(pool, stage_layers.get(number, ())):
                spot = next((slot for slot in free.get(device, ()) if slots[slot] is None), None)
                if spot is not None:
                    slots[spot] = Shard(number, replica, lines)
            replica += 1
    return slots


def _shards(pool: Pool, layers: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(device, label lines) of each rank of one replica, stage by stage."""
    degrees = pool.parallel
    expert_rank = 0
    for stage in range(degrees.pp):
        device = pool.stage_devices[stage] if pool.stage_devices else pool.device
        for dp_rank in range(degrees.dp):
            for tp_rank in range(degrees.tp):
                lines = []
                if degrees.tp > 1:
                    lines.append(f"TP {tp_rank}")
                if degrees.dp > 1:
                    lines.append(f"DP {dp_rank}")
                if degrees.ep > 1:
                    lines.append(f"EP {expert_rank % degrees.ep}")
                lines.append(layers[stage] if stage < len(layers) else f"stage {stage}")
                expert_rank += 1
                yield device, tuple(lines)


def _node(number: int, device: str, shards: list[Shard | None], x: int, y: int, width: int, height: int) -> str:
    """One host box with its GPUs."""
    across = min(len(shards), 8)
    label = f"node {number} · {len(shards)} × {escape(device.upper())}"
    parts = [
        f'<rect class="host" x="{x}" y="{y}" width="{width}" height="{height}" rx="14"/>',
        f'<text class="soft" x="{x + _PAD}" y="{y + 22}">{label}</text>',
    ]
    for slot, shard in enumerate(shards):
        left = x + _PAD + slot % across * (_GPU + _GAP)
        top = y + _HEAD + _PAD + slot // across * (_GPU + _GAP)
        parts.append(_gpu(slot, shard, left, top))
    return "".join(parts)


def _gpu(slot: int, shard: Shard | None, left: int, top: int) -> str:
    """One GPU."""
    box = f'x="{left}" y="{top}" width="{_GPU}" height="{_GPU}" rx="10"'
    if shard is None:
        middle = f'x="{left + _GPU // 2}" y="{top + _GPU // 2 + 4}" text-anchor="middle"'
        return f'<rect class="idle" {box}/><text class="soft" {middle}>idle</text>'
    colour = CATEGORICAL[shard.replica % len(CATEGORICAL)]
    lines = "".join(
        f'<text class="soft" x="{left + 12}" y="{top + 44 + 15 * place_}">{escape(line)}</text>'
        for place_, line in enumerate(shard.lines)
    )
    return (
        f"<g><title>GPU {slot}: replica {shard.replica}, {escape(', '.join(shard.lines))}</title>"
        f'<rect {box} fill="{colour}" fill-opacity=".16" stroke="{colour}" stroke-opacity=".75" stroke-width="1.5"/>'
        f'<text x="{left + 12}" y="{top + 24}" font-weight="650">replica {shard.replica}</text>{lines}</g>'
    )


def _legend(plan: Plan) -> str:
    """A coloured key for each replica, up to the palette's length, and the router in words."""
    replicas = sum(pool.replicas for pool in plan.pools)
    if replicas == 1:
        return ""
    keys = "".join(
        f'<span><i style="background:{CATEGORICAL[number % len(CATEGORICAL)]}"></i>replica {number}</span>'
        for number in range(min(replicas, len(CATEGORICAL)))
    )
    more = f"<span>… {replicas} replicas, colours repeat</span>" if replicas > len(CATEGORICAL) else ""
    return f'<div class="legend">{keys}{more}<span>requests spread by: {plan.router.replace("_", " ")}</span></div>'
