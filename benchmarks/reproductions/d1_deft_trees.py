"""D1: KV traffic and decode latency of DeFT's reasoning trees, kernels that share prefixes beside one that does not.

    python benchmarks/reproductions/d1_deft_trees.py [../shared/data]

KV traffic is computed from the trees, and nothing is fitted. All measured runs are of one of the 50 trees (tag "0_",
the first), cut after their iterations and with a prompt of the run's length; the other 49 are replayed too, and have
nothing published beside them. Decode latency: a kernel is a fixed time an iteration and a rate. Both are fitted on half
of the runs (every second prompt length of Llama-3.1-8B) and predict the other half, and the runs of Llama-3-8B.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from simtool.models.architecture import Attention
from simtool.models.config import load_architecture
from simtool.simulator.programs.kv_reads import KvReads, kv_reads
from simtool.simulator.programs.kv_tree import KvTree, kv_tree

TASK = "docmergeToT"
FITTED_MODEL = "Llama-3.1-8B"
FITTED_PROMPTS = (1000, 4000, 8000, 20000)  # of 1, 2, 4, 6, 8, 16 and 20 thousand: every second one
PUBLISHED_GAIN = {1000: 1.0, 20000: 2.07}  # targets.md D1


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A measured run: traffic in bytes as published (KV heads not shared by query heads), seconds of all iterations."""

    model: str
    mode: str
    tree: int
    prompt: int
    iterations: int
    kv_bytes: int
    decode_s: float


def read_trees(folder: Path) -> list[KvTree]:
    trees = json.loads((folder / "trees.json").read_text(encoding="utf-8"))["trees"][TASK]
    found = []
    for nodes in trees:
        row = {node[0]: place for place, node in enumerate(nodes)}
        parent = [row.get(node[1], -1) for node in nodes]
        found.append(kv_tree(parent, *([node[column] for node in nodes] for column in (2, 3, 4))))
    return found


def read_runs(folder: Path) -> list[Run]:
    with (folder / "latency_runs.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = []
    for row in rows:
        tree = re.match(r"(\d+)_p\d+_s\d+$", row["tag"])
        assert tree is not None, row["tag"]
        found.append(
            Run(
                model=row["model"].removeprefix("meta-llama_Meta-"),
                mode=row["mode"],
                tree=int(tree[1]),
                prompt=int(row["prompt_len"]),
                iterations=int(row["n_iter"]),
                kv_bytes=int(row["KV_IO"]),
                decode_s=float(row["decode_latency"]) / 1e3,
            )
        )
    return found


def replay(tree: KvTree, prompt: int, iterations: int) -> KvReads:
    """The tree under a prompt of this length: roots are what was there before the first iteration."""
    tokens = np.where(tree.parent < 0, prompt, tree.tokens)
    start = np.where(tree.parent < 0, tree.end - prompt + 1, tree.start)
    return kv_reads(replace(tree, tokens=tokens, start=start), iterations)


def token_bytes(name: str) -> int:
    """Bytes of a token as DeFT counts them: keys and values of 2 bytes for every *query* head of every layer."""
    layers = load_architecture(name).layers
    heads = [layer.mixer for layer in layers if isinstance(layer.mixer, Attention)]
    return sum(mixer.num_heads * mixer.head_dim * 4 for mixer in heads)


def kv_bytes(run: Run, reads: KvReads, each: int) -> int:
    tokens = reads.path_tokens if run.mode == "seq" else reads.unique_tokens
    return int(tokens.sum()) * each


def work(run: Run, reads: KvReads, each: int) -> float:
    """What a kernel's time grows with: bytes, or for a block of threads a node (no split) its longest node."""
    return float(reads.longest_tokens.sum() * each) if run.mode == "node" else float(kv_bytes(run, reads, each))


def fit(rows: list[tuple[Run, float]]) -> tuple[float, float]:
    """Seconds an iteration and bytes/s of one kernel: least squares of relative errors."""
    seconds = np.array([run.decode_s for run, _ in rows])
    terms = np.array([[run.iterations, amount] for run, amount in rows]) / seconds[:, None]
    fixed, slope = np.linalg.lstsq(terms, np.ones(len(rows)), rcond=None)[0]
    return float(fixed), float(1.0 / slope)


def predict(rows: list[tuple[Run, float]]) -> tuple[dict[str, tuple[float, float]], list[tuple[Run, float, bool]]]:
    """Both parameters by kernel; (run, predicted seconds, whether it was fitted)."""
    chosen = [(r, w) for r, w in rows if r.model == FITTED_MODEL and r.prompt in FITTED_PROMPTS]
    kernels = {mode: fit([(r, w) for r, w in chosen if r.mode == mode]) for mode in sorted({r.mode for r, _ in rows})}
    used = {id(run) for run, _ in chosen}
    said = []
    for run, amount in rows:
        fixed, rate = kernels[run.mode]
        said.append((run, run.iterations * fixed + amount / rate, id(run) in used))
    return kernels, said


def gains(said: list[tuple[Run, float, bool]]) -> list[tuple[int, float, float]]:
    """(prompt, measured, predicted): time a sequence over the best shared kernel's ("flatten")."""
    at = {(run.mode, run.prompt): (run.decode_s, seconds) for run, seconds, _ in said if run.model == FITTED_MODEL}
    prompts = sorted(prompt for mode, prompt in at if mode == "flatten")
    pairs = [(prompt, at["seq", prompt], at["flatten", prompt]) for prompt in prompts]
    return [(prompt, alone[0] / shared[0], alone[1] / shared[1]) for prompt, alone, shared in pairs]


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data") / "deft"
    trees, runs, each = read_trees(folder), read_runs(folder), token_bytes("llama-3.1-8b")
    reads = {run: replay(trees[run.tree], run.prompt, run.iterations) for run in runs}
    exact = sum(kv_bytes(run, reads[run], each) == run.kv_bytes for run in runs)
    print(f"1. KV traffic to the byte: {exact} of {len(runs)} runs (of tree {sorted({run.tree for run in runs})})")
    whole = [kv_reads(tree, int(tree.end.max())) for tree in trees]
    saved = [float(found.path_tokens.sum() / found.unique_tokens.sum()) for found in whole]
    print(
        f"   all {len(trees)} trees with their own prompts: {sum(int(f.unique_tokens.sum()) for f in whole) * each}"
        f" bytes shared, {sum(int(f.path_tokens.sum()) for f in whole) * each} a sequence;"
        f" ratio {min(saved):.2f} to {max(saved):.2f}, median {median(saved):.2f}"
    )
    kernels, said = predict([(run, work(run, reads[run], each)) for run in runs])
    print("2. decode latency")
    for mode, (fixed, rate) in kernels.items():
        print(f"   {mode:10} fitted: {fixed * 1e3:6.2f} ms an iteration, {rate / 1e9:7.1f} GB/s (as DeFT counts bytes)")
    print(f"   {'model':13} {'kernel':10} {'prompt':>6} {'published':>9} {'simulated':>9} {'error':>7}")
    for run, seconds, used in said:
        note = "  fitted" if used else ""
        error = seconds / run.decode_s - 1
        print(f"   {run.model:13} {run.mode:10} {run.prompt:6} {run.decode_s:9.2f} {seconds:9.2f} {error:+7.1%}{note}")
    for name, kept in (
        ("held out, Llama-3.1-8B", lambda r: r.model == FITTED_MODEL),
        ("blind, Llama-3-8B", lambda r: r.model != FITTED_MODEL),
    ):
        errors = [abs(s / r.decode_s - 1) for r, s, used in said if kept(r) and not used]
        print(f"   {name}: median {median(errors):.1%}, worst {max(errors):.1%} of {len(errors)} runs")
    print("3. gain of the shared kernel (flatten) by prompt: published, simulated")
    for prompt, measured, predicted in gains(said):
        print(f"   {prompt:6} {measured:5.2f} {predicted:5.2f}")


if __name__ == "__main__":
    main()
