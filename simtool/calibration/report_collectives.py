"""How well collective curves do: in-sample, held-out, and on tables that no curve was fitted to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simtool.calibration.collective_samples import (
    Samples,
    apex_samples,
    read_samples,
    vidur_samples,
)
from simtool.hardware.cluster import NodeGroup, node_group
from simtool.hardware.collective_curves import FITTED_DEVICES, load_curves
from simtool.hardware.collectives import CollectiveModel, collective_model
from simtool.hardware.device import load_device
from simtool.hardware.links import load_link
from simtool.units import MIB

Array = NDArray[np.float64]
MIN_POINTS = 5  # a group with fewer sizes comes from rows with swapped columns (apex_plus, V100 reduce_scatter)
FOUR_KINDS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRow:
    """Relative errors of one family of collectives. fitted: in-sample (median, p95); held_out: the same, left out."""

    device: str
    kind: str
    library: str
    ranks: int
    points: int
    fitted: tuple[float, float]
    held_out: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRow:
    """Errors on measurements that no curve was fitted to. bias: median log(predicted / measured)."""

    name: str
    points: int
    median: float
    p95: float
    spread: float
    bias: float


def error_table(data: Path) -> list[ErrorRow]:
    """One row a shipped curve: its error on the samples it was fitted to and, from its file, held out."""
    rows = []
    for device in FITTED_DEVICES:
        curves = load_curves(device)
        for samples in read_samples(data, device):
            curve = curves.find(samples.kind, samples.library)[samples.ranks]
            error = np.abs(curve.seconds(samples.size_bytes) / samples.seconds - 1.0)
            rows.append(
                ErrorRow(
                    device=device,
                    kind=samples.kind,
                    library=samples.library,
                    ranks=samples.ranks,
                    points=samples.size_bytes.size,
                    fitted=(float(np.median(error)), float(np.quantile(error, 0.95))),
                    held_out=curve.held_out,
                )
            )
    return rows


def check_table(data: Path) -> list[CheckRow]:
    """Other people's H200, one device predicted from another, and multi-node tables."""
    h200, a100 = _usual_node("h200"), _usual_node("a100-80g")
    own = collective_model(h200, "nccl")
    apex = list(apex_samples(data, "H200-SXM-141GB", nodes="1", kinds=FOUR_KINDS))
    rows = [_check("H200 of apex_plus (other machine, other NCCL)", own, apex, 1)]
    for target, source in ((a100, "h200"), (h200, "a100-80g")):
        name = target.device.name
        moved = _moved(target, source)
        rows.append(_check(f"{name} NCCL from {source} by link ratios", moved, _library(data, name, "nccl"), 1))
        moved = replace(moved, library="vllm")
        rows.append(_check(f"{name} vLLM all-reduce from {source}", moved, _library(data, name, "vllm"), 1))
    v100 = _usual_node("v100-pcie-16g")
    pcie = list(apex_samples(data, "V100-PCIE-16GB", nodes="1", kinds=FOUR_KINDS))
    rows.append(_check("v100-pcie NCCL from l40s by link ratios", _moved(v100, "l40s"), pcie, 1))
    return rows + _multi_node_checks(data, v100, a100)


def _multi_node_checks(data: Path, v100: NodeGroup, a100: NodeGroup) -> list[CheckRow]:
    """The hierarchical model, its network taken from the same machines' send/recv between two nodes.

    One NIC a node: on both clusters, two-node times do not fall when more GPUs a node take part.
    """
    rows = []
    for nodes in ("2", "4"):
        samples = list(apex_samples(data, "V100-PCIE-16GB", nodes=nodes, kinds=FOUR_KINDS))
        pair = next(iter(apex_samples(data, "V100-PCIE-16GB", nodes="2", kinds=("send_recv",))))
        model = collective_model(_with_network(v100, pair), "nccl")
        name = f"v100-pcie, {nodes} nodes over TCP (apex_plus)"
        rows.append(_check(name, model, samples, int(nodes)))
        rows.append(_check(f"{name}, >= 1 MiB", model, [_above(s, MIB) for s in samples], int(nodes)))
    pair = next(iter(vidur_samples(data, "send_recv", nodes=2)))
    model = collective_model(_with_network(a100, pair), "nccl")
    samples = list(vidur_samples(data, "all_reduce", nodes=2))
    return [*rows, _check("a100, 2 nodes, hierarchical (vidur)", model, samples, 2)]


def _above(samples: Samples, floor_bytes: float) -> Samples:
    large = samples.size_bytes >= floor_bytes
    return replace(samples, size_bytes=samples.size_bytes[large], seconds=samples.seconds[large])


def _with_network(group: NodeGroup, pair: Samples) -> NodeGroup:
    """`group` with the network that `pair`, send/recv between two nodes, measured."""
    largest = int(np.argmax(pair.size_bytes))
    link = replace(
        load_link("roce-100g"),
        name="measured",
        latency_s=float(pair.seconds.min()),
        bytes_per_s=float(pair.size_bytes[largest] / pair.seconds[largest]),
    )
    return replace(group, inter=link, nics=1)


def _usual_node(name: str) -> NodeGroup:
    device = load_device(name)
    return node_group(device, nodes=1, devices_per_node=device.per_node)


def _moved(target: NodeGroup, source: str) -> CollectiveModel:
    """The model of `target` as if only `source` had been measured."""
    return CollectiveModel(group=target, library="nccl", curves=load_curves(source))


def _library(data: Path, device: str, library: str) -> list[Samples]:
    return [s for s in read_samples(data, device) if s.library == library and s.kind != "send_recv"]


def _check(name: str, model: CollectiveModel, table: list[Samples], nodes: int) -> CheckRow:
    logs = [
        np.log(model.price(samples.kind, samples.size_bytes, samples.ranks, nodes).seconds / samples.seconds)
        for samples in table
        if samples.size_bytes.size >= MIN_POINTS
    ]
    errors = np.concatenate(logs)
    relative = np.abs(np.expm1(errors))
    return CheckRow(
        name=name,
        points=errors.size,
        median=float(np.median(relative)),
        p95=float(np.quantile(relative, 0.95)),
        spread=float(np.quantile(np.abs(errors), 0.9)),
        bias=float(np.median(errors)),
    )


def report_lines(data: Path) -> Iterator[str]:
    """Both tables as text, a family a line."""
    rows = error_table(data)
    yield f"{'device':14} {'collective':15} {'library':13} {'points':>6}  in-sample med / p95   held-out med / p95"
    for device, kind, library in sorted({(r.device, r.kind, r.library) for r in rows}):
        part = [r for r in rows if (r.device, r.kind, r.library) == (device, kind, library)]
        numbers = np.mean([[*r.fitted, *r.held_out] for r in part], axis=0)
        points = sum(r.points for r in part)
        yield (
            f"{device:14} {kind:15} {library:13} {points:6d}      {numbers[0]:6.1%} / {numbers[1]:6.1%}"
            f"      {numbers[2]:6.1%} / {numbers[3]:6.1%}"
        )
    yield ""
    yield f"{'not fitted to':48} {'points':>6}  median     p95   90% |log|   bias"
    for row in check_table(data):
        yield f"{row.name:48} {row.points:6d}  {row.median:6.1%} {row.p95:7.1%}   {row.spread:8.2f}  {row.bias:+6.2f}"
