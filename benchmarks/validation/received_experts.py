"""Experts behind an all-to-all: prices against DeepEP-mode measurements that nothing was fitted to.

    python -m benchmarks.validation.received_experts [--data ../shared/data]

AIConfigurator's wideep tables (H200, SGLang 0.5.10): DeepGEMM kernels of one rank of DeepSeek-V3, EP 4 to 256, masked
(generation, DeepEP's low latency) and contiguous (context, normal). No profile holds them: simtool prices such a rank
from tables of Triton kernels. Rows are those of uniform routing, which is what simtool assumes; a context call starts
its kernels one by one and takes at least 0.37 ms, so that only rows of 2,048 tokens a rank and more are compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.validation.comparison import Row, arguments, data_folder, errors_text
from simtool.calibration.measurements import read_columns
from simtool.hardware.cluster import parse_cluster
from simtool.models.config import load_architecture
from simtool.models.lowering_mlp import expert_operators
from simtool.models.lowering_shard import make_shard
from simtool.plan import Parallel
from simtool.simulator.priced_cluster import priced_cluster

TABLES = {
    "masked": "wideep_generation_moe_perf__sglang__0.5.10",
    "contiguous": "wideep_context_moe_perf__sglang__0.5.10",
}
LEAST_TOKENS = {"masked": 1.0, "contiguous": 2048.0}  # of a rank
BACKENDS = {"masked": "deepep_low_latency", "contiguous": "deepep_high_throughput"}
LIBRARIES = ("vllm", "sglang")
SPLITS = ((2048.0, "2048 up"), (64.0, "64 and 128"), (1.0, "1 to 32"))  # tokens of a rank


def read_points(data: Path) -> Iterator[tuple[str, int, float, float]]:
    """(kernels, EP, tokens of a rank, seconds) of uniform routing."""
    folder = data / "aiconfigurator" / "kernels" / "h200_sxm"
    for kernels, name in TABLES.items():
        needed = ("num_tokens", "moe_ep_size", "distribution", "latency")
        columns = read_columns(folder / f"{name}.csv.gz", needed)
        for tokens, ranks, routing, latency_ms in zip(*(columns[key] for key in needed), strict=True):
            each = float(tokens) / int(ranks)
            if routing == "uniform" and each >= LEAST_TOKENS[kernels]:
                yield kernels, int(ranks), each, float(latency_ms) * 1e-3


def compare(data: Path, library: str) -> list[Row]:
    """Every point, predicted with the profiles of `library`, in microseconds."""
    hardware, _ = priced_cluster(parse_cluster("32x8xh200"), library)
    cost_model, arch = hardware["h200"].cost_model, load_architecture("deepseek-v3")
    rows = []
    for kernels, ranks, tokens, measured_s in read_points(data):
        parallel = Parallel(dp=ranks, ep=ranks, all2all_backend="deepep_low_latency")
        operators = expert_operators(make_shard(arch, parallel, 0), np.array([ranks * tokens]))
        experts = next(operator for operator in operators if operator.family == "moe")
        predicted_s = float(cost_model.price(experts).seconds[0])
        row = Row(
            name=f"EP{ranks}, {tokens:g} tokens a rank, {library}",
            quantity=kernels,
            predicted=predicted_s * 1e6,
            measured=measured_s * 1e6,
            split=next(split for least, split in SPLITS if tokens >= least),
        )
        rows.append(row)
    return rows


def main() -> None:
    data = data_folder(arguments(__doc__ or ""))
    for library in LIBRARIES:
        rows = compare(data, library)
        print(f"profiles of {library}")
        print(errors_text(rows))


if __name__ == "__main__":
    main()
