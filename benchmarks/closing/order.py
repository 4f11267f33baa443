"""Was the predicted order of plans the measured one? Plans of a small model on this CPU, one after another.

`python -m benchmarks.closing.order --profile FILE [--model moe] [--out DIR]`: some five minutes. The plans differ in
batch knobs, chunk sizes, replicas and, with --model moe, in how many experts stay on the device; all serve the same 40
requests at once, so that throughput is what the plan makes of it. Each runs twice: pairs that differ by less than the
runs of one plan do not count. It exits with 1 unless the best plan is right and Kendall's tau over the other pairs is
at least 0.8.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.closing.loop import MODELS, simtool

LEAST_TAU = 0.8
LOAD = ["--num-prompts", "40", "--input-len", "uniform:64:320", "--output-len", "uniform:8:24", "--seed", "2"]
PLANS = {
    "one at a time": ["--max-num-seqs", "1", "--max-num-batched-tokens", "256"],
    "two": ["--max-num-seqs", "2", "--max-num-batched-tokens", "256"],
    "four": ["--max-num-seqs", "4", "--max-num-batched-tokens", "256"],
    "sixteen": ["--max-num-seqs", "16", "--max-num-batched-tokens", "256"],
    "small chunks": ["--max-num-seqs", "16", "--max-num-batched-tokens", "24"],
    "middling chunks": ["--max-num-seqs", "16", "--max-num-batched-tokens", "96"],
    "two replicas": ["--max-num-seqs", "16", "--max-num-batched-tokens", "256", "--replicas", "2"],
    "two small replicas": ["--max-num-seqs", "2", "--max-num-batched-tokens", "256", "--replicas", "2"],
}

OFFLOADS = {  # of the mixture of experts alone
    f"{slots} experts a layer here": [
        "--max-num-seqs",
        "4",
        "--max-num-batched-tokens",
        "256",
        "--offload",
        f"lru,slots={slots}",
    ]
    for slots in (1, 4, 7)
}


def main() -> int:
    """Run every plan twice, and compare the order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", type=Path, required=True, help="of this CPU, by simtool calibrate")
    parser.add_argument("--model", default="dense", choices=sorted(MODELS))
    parser.add_argument("--out", type=Path, help="folder to keep everything in")
    options = parser.parse_args()
    ask = ["--devices", "2xcpu", "--kernel-library", "torch", "--profile", str(options.profile)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        knobs_of = PLANS | (OFFLOADS if options.model == "moe" else {})
        for number, knobs in enumerate(knobs_of.values()):
            for run in ("run", "again"):
                out = ["--on", "cpu", "--out", str(folder / f"{run}-{number}")]
                simtool("execute", "--model", MODELS[options.model], *ask, *LOAD, *knobs, *out)
        plans = [str(folder / f"run-{number}" / "plan.json") for number in range(len(knobs_of))]
        runs = [str(folder / f"run-{number}") for number in range(len(knobs_of))]
        again = [str(folder / f"again-{number}") for number in range(len(knobs_of))]
        simtool("validate", "--plans", *plans, "--measured", *runs, "--again", *again, "--out", str(folder / "order"))
        found = json.loads((folder / "order" / "validation.json").read_text(encoding="utf-8"))["order"]
    return 0 if found["top1"] and (found["clear_tau"] or 0.0) >= LEAST_TAU else 1


if __name__ == "__main__":
    sys.exit(main())
