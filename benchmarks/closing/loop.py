"""The loop closed for real on this CPU: calibrate → plan → emit → execute 40 requests twice → validate.

`python -m benchmarks.closing.loop [--budget 75s] [--out DIR]`: three minutes. It exits with 1 unless the executed
schedule is the simulator's step for step, and both runs give the same tokens and those of a plain forward pass; and
with 3 where an error of steps, TTFT, TPOT or end-to-end latency is above max(25%, 3 x the difference of the two runs).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from simtool.calibration.executor.execution import Execution
from simtool.calibration.executor.execution_file import load_execution
from simtool.calibration.executor.prompts import prompt_ids
from simtool.calibration.validation.reading import read_measurement
from simtool.calibration.validation.validate import plan_for, validate
from simtool.cli import run
from simtool.models.reduced import plan_architecture
from simtool.terminal import print_table
from simtool.validation import Validation

MODELS = {"dense": "examples/small-dense/config.json", "moe": "examples/small-moe/config.json"}
LOAD = ["--num-prompts", "40", "--input-len", "uniform:32:256", "--output-len", "uniform:8:32"]
LOAD += ["--request-rate", "5", "--seed", "1"]
KNOBS = ["--max-num-seqs", "8,16", "--max-num-batched-tokens", "128,256"]
FORWARDS, FIRST = 3, 6  # requests, and their first tokens, that are compared with a plain forward pass
WRONG, INACCURATE = 1, 3  # exit codes
HEADS = ("model", "what", "predicted", "measured", "error", "noise", "limit", "gate")


def simtool(*words: str) -> None:
    """A command, as a user types it."""
    print("$ simtool", *words, file=sys.stderr)
    code = run(words)
    if code:
        sys.exit(f"simtool {words[0]} ended with {code}")


def calibrated(folder: Path, budget: str) -> Path:
    """The profile of this CPU for both models, whole and cut in two."""
    models = ",".join(MODELS.values())
    ask = ["--device", "cpu", "--models", models, "-tp", "1,2", "--dtypes", "fp32", "--budget", budget]
    served = ["--max-num-batched-tokens", "256", "--max-num-seqs", "16", "--max-model-len", "512"]
    simtool("calibrate", *ask, *served, "--out", str(folder))
    return next(folder.glob("cpu*.json"))


def closed(name: str, profile: Path, folder: Path) -> tuple[Validation, Execution, Execution]:
    """Plan the model on two processes, emit the plan, run it twice, and compare."""
    ask = ["--devices", "2xcpu", "--kernel-library", "torch", "--profile", str(profile), "--objective", "latency"]
    simtool("plan", MODELS[name], *ask, *LOAD, *KNOBS, "--out", str(folder / "plan"))
    plan = str(folder / "plan" / "plan.json")
    simtool("emit", plan, "--target", "torchrun", *LOAD, "--out", str(folder / "job"))
    for once in ("a", "b"):
        simtool("execute", plan, *LOAD, "--on", "cpu", "--out", str(folder / once))
    simtool("validate", "--measured", str(folder / "a"), "--again", str(folder / "b"), "--out", str(folder / "report"))
    first, again = (read_measurement(folder / once) for once in ("a", "b"))
    found = validate(plan_for(first, None), first, first.workload, again=again)
    return found, load_execution(folder / "a"), load_execution(folder / "b")


def tokens_right(one: Execution, other: Execution) -> bool:
    """Both runs agree, and the first requests with a forward pass of no shared code, without cache or batch."""
    from tests.calibration.executor.reference import Reference

    reference = Reference(plan_architecture(one.plan))
    vocabulary = reference.arch.vocab_size
    for request in range(FORWARDS):
        prompt = prompt_ids(one.workload, request, vocabulary, 0).tolist()
        if reference.generate(prompt, FIRST) != one.tokens[request][:FIRST].tolist():
            return False
    return all(np.array_equal(a, b) for a, b in zip(one.tokens, other.tokens, strict=True))


def rows_of(name: str, found: Validation, tokens: bool) -> tuple[list[list[str]], int]:
    """(a line a gate, the worst exit code of them)."""
    rows = [[name, "tokens", "", "", "", "", "equal", "pass" if tokens else "FAIL"]]
    code = 0 if tokens else WRONG
    metrics = {row.key: row for row in found.metrics}
    for gate in found.gates:
        metric = metrics.get(gate.name)
        values = [f"{metric.predicted:.4g}", f"{metric.measured:.4g}", f"{metric.error:+.1%}"] if metric else []
        noise = metric.noise if metric else found.overall.noise if found.overall and "step" in gate.name else 0.0
        values = values or ["", "", f"{gate.found:.1%}"]
        rows.append([name, gate.name, *values, f"{noise:.1%}", f"{gate.limit:.0%}", "pass" if gate.passed else "FAIL"])
        if not gate.passed:
            code = WRONG if gate.name == "schedule identical" else code or INACCURATE
    return rows, code


def main() -> int:
    """Run the loop for both models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", default="75s", help="of the calibration")
    parser.add_argument("--profile", type=Path, help="a profile of this CPU, instead of calibrating")
    parser.add_argument("--out", type=Path, help="folder to keep everything in")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        profile = options.profile or calibrated(folder / "calibration", options.budget)
        results = []
        for name in MODELS:
            found, one, other = closed(name, profile, folder / name)
            results.append(rows_of(name, found, tokens_right(one, other)))
    print_table(HEADS, [row for rows, _ in results for row in rows], left=2)
    codes = [code for _, code in results]
    return WRONG if WRONG in codes else max(codes)


if __name__ == "__main__":
    sys.exit(main())
