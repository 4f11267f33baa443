"""Collectives: seconds of all-reduce, all-gather, reduce-scatter, all-to-all and send/recv on a cluster's links.

Inside a node a curve fitted to measurements is used, that of the kernel library that runs it (vLLM's, SGLang's or
TensorRT-LLM's own all-reduce, else NCCL). A device without measurements takes the curve of the nearest measured one,
latency and bandwidth scaled by the ratio of their links (provenance "transferred"). The curves of a user's profile come
before those of the same library that are shipped. A device that the catalogue lacks has the curves of its own profile
alone; what they lack is a ring's formula on a cautious link (provenance "roofline"). Between nodes a hierarchical model
adds the network's latency, and transfers over it overlap those inside the node, as NCCL pipelines chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simtool.errors import InputError
from simtool.hardware.cluster import NodeGroup
from simtool.hardware.collective_algorithms import (
    Algorithm,
    algorithm_seconds,
    check_kind,
    network_seconds,
    wire_factor,
)
from simtool.hardware.collective_curves import Curve, CurveSet, alike, nearest_curves
from simtool.hardware.cost import Cost, Provenance, merged
from simtool.hardware.links import scale_up_link
from simtool.hardware.own_profiles import with_file
from simtool.models.operators import Operator

Array = NDArray[np.float64]

LIBRARIES = ("vllm", "vllm-eager", "sglang", "sglang-eager", "trtllm", "nccl", "torch", "deepep", "deepep_ll")

# Half-widths of the 90% interval in log time: 90% quantiles of |log error| where the model meets tables that it was not
# fitted to, as `python -m simtool.calibration.fit_collectives --data DIR --report` prints. Added in quadrature to a
# curve's own held-out spread.
SAME_LINK_SPREAD = 0.20  # the same device measured by someone else (apex_plus against the fitted H200)
OTHER_LINK_SPREAD = 0.34  # A100 from H200 and back by link ratios (NCCL 0.28-0.29, vLLM 0.33-0.34)
OTHER_HOST_SPREAD = 0.98  # V100 PCIe from L40S: peer access and host bridges differ
OTHER_NODES_SPREAD = 0.60  # hierarchical model on two A100 nodes (vidur)


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveModel:
    """Prices collectives on one group of nodes with one kernel library. Make it once with `collective_model`.

    own: the device's curves in the user's profiles, where the shipped ones (`curves`) are another device's.
    """

    group: NodeGroup
    library: str
    curves: CurveSet
    own: CurveSet | None = None

    def price(
        self,
        kind: str,
        size: ArrayLike,
        ranks: int,
        nodes: int = 1,
        *,
        across: Array | None = None,
        library: str = "",
    ) -> Cost:
        """Cost of one call for every size in bytes (as nccl-tests counts), `ranks` spread evenly over `nodes`.

        across: bytes that a rank sends straight to other nodes, where `size` is what it sends inside its own. library:
        instead of the model's. send_recv between nodes: half of the ranks send to the others over the NICs of a node.
        """
        check_kind(kind)
        sizes = _checked_sizes(size)
        _check_placement(ranks, nodes)
        if ranks == 1:
            zero = np.zeros_like(sizes)
            return Cost(seconds=zero, lower=zero, upper=zero, roofline_s=zero, provenance="measured", source="one rank")
        senders = -(-ranks // nodes)
        per_node = (1 if nodes > 1 else 2) if kind == "send_recv" else senders
        # vLLM's, SGLang's and TensorRT-LLM's own all-reduce work inside one node only; NCCL does the rest.
        library = library or (self.library if nodes == 1 or kind in ("dispatch", "combine") else "nccl")
        if self.own is not None and self._own_comes_first(self.own, kind, library):
            alone = replace(self, curves=self.own, own=None)
            return alone.price(kind, size, ranks, nodes, across=across, library=library)
        fixed, moving, spread, source = self._inside(kind, sizes, per_node, library)
        hops, transfer = self._between_nodes(kind, sizes, senders, nodes, across)
        seconds = fixed + hops + np.maximum(moving, transfer)
        width = np.exp(float(np.hypot(spread, OTHER_NODES_SPREAD)) if nodes > 1 else spread)
        return Cost(
            seconds=seconds,
            lower=seconds / width,
            upper=seconds * width,
            roofline_s=np.maximum(self._floor(kind, sizes, per_node), transfer),
            provenance=self._provenance(per_node, nodes) if self._measured(kind, library) else "roofline",
            source=source + (f" + hierarchical over {nodes} nodes ({self.group.inter.name})" if nodes > 1 else ""),
        )

    def price_operator(self, operator: Operator) -> Cost:
        """Cost of an Operator of family "collective"; ranks and nodes may differ from step to step."""
        if operator.family != "collective" or not operator.collective:
            raise InputError(operator.name, "is no collective", "an Operator with family and field collective")
        dims = operator.dims
        if "across" in dims:
            return self._exchange(operator)
        size = np.atleast_1d(np.asarray(dims["bytes"], dtype=np.float64))
        ranks = np.broadcast_to(dims["ranks"], size.shape)
        nodes = np.broadcast_to(dims.get("nodes", np.ones(1)), size.shape)
        layouts = sorted({(int(r), int(n)) for r, n in zip(ranks.tolist(), nodes.tolist(), strict=True)})
        parts = [((ranks == r) & (nodes == n), self.price(operator.collective, size, r, n)) for r, n in layouts]
        if len(parts) == 1:
            return parts[0][1]
        return merged(parts)

    def _exchange(self, operator: Operator) -> Cost:
        """Dispatch or combine by DeepEP; an all-to-all of as many bytes where DeepEP was not measured."""
        dims, kind = operator.dims, operator.collective
        library = "deepep_ll" if dims["low_latency"][0] else "deepep"
        known = any(curves.find(kind, library) for curves in (self.own, self.curves) if curves is not None)
        return self.price(
            kind if known else "all_to_all",
            dims["bytes"],
            int(dims["ranks"][0]),
            int(dims["nodes"][0]),
            across=dims["across"],
            library=library if known else "nccl",
        )

    def _own_comes_first(self, own: CurveSet, kind: str, library: str) -> bool:
        order = [(name, curves) for name in (library, "nccl") for curves in (own, self.curves)]
        return next((curves is own for name, curves in order if curves.find(kind, name)), False)

    def _inside(self, kind: str, size: Array, ranks: int, library: str) -> tuple[Array, Array, float, str]:
        """(latency, transfer) seconds inside a node, the interval's half-width in log time, and the source."""
        if ranks == 1:
            return np.zeros_like(size), np.zeros_like(size), 0.0, "network"
        if not self._measured(kind, library):
            return self._formula(kind, size, ranks)
        curves = self._curves(kind, library)
        below, above, weight = _neighbours(sorted(curves), ranks)
        parts = [self._scaled(curves[n], size, ranks) for n in (below, above)]
        fixed, moving = (_between(parts[0][i], parts[1][i], weight) for i in (0, 1))
        spread = max(curves[below].spread, curves[above].spread)
        if self._transferred(ranks):
            spread = float(np.hypot(spread, self._transfer_spread(ranks)))
        alive = size > 0
        return np.where(alive, fixed, 0.0), np.where(alive, moving, 0.0), spread, self._source(curves[above])

    def _measured(self, kind: str, library: str) -> bool:
        """Whether a curve prices the kind; one of a catalogued device must, or the library lacks it."""
        return self.group.device.catalogued or any(self.curves.find(kind, name) for name in (library, "nccl"))

    def _formula(self, kind: str, size: Array, ranks: int) -> tuple[Array, Array, float, str]:
        """As `_inside`, for what nobody measured on a device of the user's own."""
        algorithm: Algorithm = "ring" if kind in ("all_reduce", "all_gather", "reduce_scatter") else "direct"
        fixed, seconds = (algorithm_seconds(kind, algorithm, one, ranks, self.group.intra) for one in (0 * size, size))
        alive, source = size > 0, f"{algorithm} on {self.group.intra.name}: {kind} was not measured"
        return np.where(alive, fixed, 0.0), np.where(alive, seconds - fixed, 0.0), OTHER_HOST_SPREAD, source

    def _curves(self, kind: str, library: str) -> dict[int, Curve]:
        for name in (library, "nccl"):
            found = self.curves.find(kind, name)
            if found:
                return found
        raise InputError(f"{kind} by {library}", f"was not measured on {self.curves.device}", "use another library")

    def _scaled(self, curve: Curve, size: Array, ranks: int) -> tuple[Array, Array]:
        """(latency, transfer) of `curve` on this group's link, stretched to more ranks than it was measured with."""
        intra, link = self.group.intra, self.curves.link
        ranks = curve.ranks if curve.kind == "send_recv" else max(ranks, curve.ranks)
        deeper = np.log2(ranks) / np.log2(curve.ranks)
        wire = wire_factor(curve.kind, ranks, intra.reduces) / wire_factor(curve.kind, curve.ranks, link.reduces)
        fixed = curve.latency_s * deeper * intra.latency_s / link.latency_s
        return np.full_like(size, fixed), curve.excess(size) * wire * link.bytes_per_s / intra.bytes_per_s

    def _same_link(self, ranks: int) -> bool:
        intra, link = self.group.intra, self.curves.link
        same = (intra.latency_s, intra.bytes_per_s) == (link.latency_s, link.bytes_per_s)
        return same and ranks <= max(curve.ranks for curve in self.curves.curves)

    def _transferred(self, ranks: int) -> bool:
        return self.group.device.name != self.curves.device or not self._same_link(ranks)

    def _transfer_spread(self, ranks: int) -> float:
        if self.group.intra.kind in ("pcie", "loopback"):
            return OTHER_HOST_SPREAD
        return SAME_LINK_SPREAD if self._same_link(ranks) else OTHER_LINK_SPREAD

    def _provenance(self, per_node: int, nodes: int) -> Provenance:
        if per_node == 1:
            return "roofline"
        return "transferred" if nodes > 1 or self._transferred(per_node) else "interpolated"

    def _source(self, curve: Curve) -> str:
        moved = "" if self.group.device.name == self.curves.device else f" scaled to {self.group.device.name}"
        return with_file(f"{curve.library} {curve.kind} on {self.curves.device}{moved}", curve.file)

    def _floor(self, kind: str, size: Array, per_node: int) -> Array:
        intra = self.group.intra
        return np.asarray(wire_factor(kind, per_node, intra.reduces) * size / intra.bytes_per_s)

    def _between_nodes(
        self, kind: str, size: Array, senders: int, nodes: int, across: Array | None
    ) -> tuple[Array, Array]:
        """(latency, transfer) seconds of the part between nodes."""
        link, nics = self.group.inter, self.group.nics
        if across is None or nodes == 1:
            return network_seconds(kind, size, nodes, senders, link, nics)
        return network_seconds("send_recv", across, nodes, senders, link, nics)


def collective_model(group: NodeGroup, library: str = "vllm", own: Sequence[Curve] = ()) -> CollectiveModel:
    """The model of `group`'s links, with the nearest measured device's curves. InputError for an unknown library.

    own: the user's curves of `group`'s device, measured on its usual links; the first of two alike is used.
    """
    if library not in LIBRARIES:
        raise InputError(library, "is no collective library", "one of " + ", ".join(LIBRARIES))
    name, device = "nccl" if library == "torch" else library, group.device
    if not device.catalogued:
        link = scale_up_link(device)
        curves = CurveSet(device=device.name, link=link, command="", curves=tuple(reversed(own)))
        return CollectiveModel(group=group, library="gloo" if device.kind == "cpu" else name, curves=curves)
    nearest, usual = nearest_curves(device.name, group.intra), scale_up_link(device)
    if not own or not alike(usual, group.intra):
        return CollectiveModel(group=group, library=name, curves=nearest)
    if nearest.device == device.name:  # rank counts that the user did not measure stay; of two alike the last is found
        return CollectiveModel(
            group=group, library=name, curves=replace(nearest, curves=(*nearest.curves, *reversed(own)))
        )
    measured = CurveSet(device=device.name, link=usual, command="", curves=tuple(reversed(own)))
    return CollectiveModel(group=group, library=name, curves=nearest, own=measured)


def collective_time(
    kind: str,
    size: ArrayLike,
    ranks: int,
    group: NodeGroup,
    *,
    nodes: int = 1,
    library: str = "vllm",
    algorithm: Algorithm = "auto",
) -> Cost:
    """Cost of one collective on `group`. algorithm "auto": what the library does, measured where it was; any other: the
    alpha-beta formula of that algorithm on the intra-node link (provenance "roofline"), for one node only.
    """
    model = collective_model(group, library)
    if algorithm in ("auto", "hierarchical"):
        return model.price(kind, size, ranks, nodes)
    check_kind(kind)
    if nodes > 1:
        raise InputError(algorithm, "has no formula over several nodes", "use auto or hierarchical")
    sizes = _checked_sizes(size)
    seconds = algorithm_seconds(kind, algorithm, sizes, ranks, group.intra)
    floor = wire_factor(kind, ranks, group.intra.reduces) * sizes / group.intra.bytes_per_s
    return Cost(
        seconds=seconds,
        lower=np.minimum(floor, seconds),
        upper=seconds * 2.0,
        roofline_s=floor,
        provenance="roofline",
        source=f"{algorithm} on {group.intra.name}",
    )


def price_collective(operator: Operator, group: NodeGroup, library: str = "vllm") -> Cost:
    """Cost of an Operator of family "collective" on `group`. It reads the curve files on every call: where many
    operators are priced, make `collective_model(group, library)` once and use its `price_operator`.
    """
    return collective_model(group, library).price_operator(operator)


def _checked_sizes(size: ArrayLike) -> Array:
    sizes = np.atleast_1d(np.asarray(size, dtype=np.float64))
    if not (np.isfinite(sizes).all() and (sizes >= 0).all()):
        raise InputError("bytes", "must be finite and not negative", "a message size in bytes")
    return sizes


def _neighbours(measured: list[int], ranks: int) -> tuple[int, int, float]:
    """The measured rank counts around `ranks`, and how far it lies between them in log ranks (0: at the first)."""
    below = max((n for n in measured if n <= ranks), default=measured[0])
    above = min((n for n in measured if n >= ranks), default=measured[-1])
    if below == above:
        return below, above, 0.0
    return below, above, float(np.log(ranks / below) / np.log(above / below))


def _check_placement(ranks: int, nodes: int) -> None:
    if ranks < 1 or nodes < 1 or nodes > ranks:
        raise InputError(f"{ranks} ranks on {nodes} nodes", "is no placement", "1 <= nodes <= ranks")


def _between(first: Array, second: Array, weight: float) -> Array:
    if weight == 0.0:
        return first
    return np.asarray(np.exp((1 - weight) * np.log(first) + weight * np.log(second)))
