"""The KV that a layer of a prefill step sends to the decode pool, as a Kernel on a link."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simtool.models.lowering_kv import kv_transfer_operator
from simtool.models.lowering_shard import Shard
from simtool.models.operators import Array
from simtool.simulator.overlap.kernel import Kernel
from simtool.simulator.step_costs import StageHardware

KV_TRANSFER = "kv_transfer"  # family of these kernels, and their stream


def kv_kernels(shard: Shard, hardware: StageHardware, sent_bytes: Array, nodes: int) -> list[tuple[Kernel, ...]]:
    """For each of `sent_bytes` [b] of one layer the kernel that sends them; none where there is nothing to send.

    latency_s: what a message of one byte takes. The rest of its time fills the link, and reads the memory. It needs no
    multiprocessors: NICs and copy engines read by themselves.
    """
    sizes = np.append(sent_bytes, 1.0)
    seconds = hardware.cost_model.price(kv_transfer_operator(shard, sizes, nodes)).seconds
    latency_s, link = float(seconds[-1]), "nic" if nodes > 1 else "nvlink"
    found: list[tuple[Kernel, ...]] = []
    for size, alone_s in zip(sent_bytes.tolist(), seconds.tolist(), strict=False):
        work = {link: max(alone_s - latency_s, 0.0), "hbm": size}
        kernel = Kernel(
            name=KV_TRANSFER, family=KV_TRANSFER, seconds=latency_s + work[link], latency_s=latency_s, work=work
        )
        found.append((kernel,) if size > 0 else ())
    return found


def without_transfers(kernels: Sequence[Kernel]) -> list[Kernel]:
    """The kernels that compute and exchange inside the replica."""
    return [kernel for kernel in kernels if kernel.family != KV_TRANSFER]
