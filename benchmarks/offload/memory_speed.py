"""Memory against speed with offloaded experts, and the least GPU memory for 20 tokens a second, with gaps.

    python benchmarks/offload/memory_speed.py [--model NAME ...] [--device NAME ...]

One request decodes (batch 1, so that tokens a second are what its reader sees). Chosen among: the checkpoint's weights
and int4, residents, slots of each layer, policy and prefetch depth. "CPU": the host's CPU may compute experts; "loads":
all that is missing comes over the link. Routing is assumed for all models alike: Zipf 0.5, a draw kept from the token
before with chance 0.3. A DRAM size says which dtypes' experts fit there; the CPU's speed is that of the device's usual
server in each case. Cells: simulated tokens a second (<= bound), at a share of the device's memory.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace

from simtool.errors import InfeasibleError
from simtool.offload_planning import USUAL_WAYS, OffloadPlanQuestion, offload_problem
from simtool.offloading import OffloadQuestion
from simtool.plan import ExpertOffload
from simtool.planners.offload.bound import Bounds
from simtool.planners.offload.case import ON_CPU, OffloadProblem
from simtool.planners.offload.choices import Choices
from simtool.planners.offload.fastest import fastest_offload
from simtool.planners.offload.least import least_memory
from simtool.units import GB

MODELS = ("deepseek-v3", "qwen3-235b-a22b", "mixtral-8x22b", "gpt-oss-120b")
DEVICES = ("h200", "a100-80g", "rtx-4090")
DRAM_GB = (256, 512, 1024)
DTYPES = ("auto", "int4")
ROUTING, STEPS, CONTEXT = "zipf:0.5,locality=0.3", 64, 1024
SHARES = (0.25, 0.5, 0.75, 1.0)
TARGET_TOK_S = 20.0
WIDTH = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Solver:
    """A model on a device, priced once; bounds and curves are kept for all its questions."""

    problem: OffloadProblem
    bounds: Bounds
    choices: Choices

    def held_by(self, dram_gb: float) -> OffloadProblem | None:
        """The cases whose experts fit into so much host memory; None without any."""
        kept = [case for case in self.problem.cases if case.most_slots * case.expert_bytes <= dram_gb * GB]
        return replace(self.problem, cases=tuple(kept)) if kept else None


def solver(model: str, device: str, *, steps: int = STEPS, ways: tuple[ExpertOffload, ...] = USUAL_WAYS) -> Solver:
    """All dtypes, whatever host memory holds."""
    walked = OffloadQuestion(model=model, device=device, routing=ROUTING, steps=steps, context=CONTEXT)
    question = OffloadPlanQuestion(walked=walked, weight_dtypes=DTYPES, ways=ways, host_bytes=1e15)
    return Solver(problem=offload_problem(question), bounds=Bounds(), choices=Choices())


def curve_cell(found: Solver, problem: OffloadProblem, share: float) -> str:
    """Tokens a second with a share of the device's memory, and its bound."""
    try:
        answer = fastest_offload(replace(problem, hbm_bytes=share * problem.hbm_bytes), found.bounds, found.choices)
    except InfeasibleError:
        return "does not fit"
    dtype = "i4" if answer.best.choice.weight_dtype == "int4" else ""
    return f"{answer.best.tokens_per_s:.1f}{dtype} (<= {answer.bound_tokens_per_s:.1f})"


def least_cell(found: Solver, problem: OffloadProblem) -> str:
    """The least memory for the target, and what is proven to be too little."""
    try:
        answer = least_memory(problem, TARGET_TOK_S, found.bounds, found.choices)
    except InfeasibleError as error:
        proven = "no configuration passes" if "no proof" not in error.detail else "found"
        speed = error.detail.split("pass " if proven != "found" else "reaches ")[1].split(" tok/s")[0]
        return f"not reached: {proven} {speed} tok/s"
    choice = answer.best.choice
    size, bound = answer.best.device_bytes / GB, answer.bound_bytes / GB
    return f"{size:.1f} GB (>= {bound:.1f}, gap {100 * answer.gap:.0f}%) {choice.way.policy}, {choice.weight_dtype}"


def rows(found: Solver, model: str, device: str) -> Iterator[str]:
    """The lines of a model on a device, one a DRAM size and kind of policies."""
    told: dict[tuple[str, str], str] = {}  # (dtypes that host memory holds, kind) -> what was found
    for dram_gb in DRAM_GB:
        problem = found.held_by(dram_gb)
        name = f"{model:16} {device:9} {dram_gb:5}"
        if problem is None:
            least = min(case.most_slots * case.expert_bytes for case in found.problem.cases) / GB
            yield f"{name}  the experts do not fit into host memory: {least:.0f} GB with the smallest weights"
            continue
        for kind in ("CPU", "loads"):
            ways = tuple(way for way in problem.ways if kind == "CPU" or way.policy not in ON_CPU)
            asked, dtypes = replace(problem, ways=ways), ",".join(case.weight_dtype for case in problem.cases)
            if (dtypes, kind) not in told:
                cells = "".join(f"{curve_cell(found, asked, share):>{WIDTH}}" for share in SHARES)
                told[dtypes, kind] = f"{kind:5}{cells}  {least_cell(found, asked)}"
            yield f"{name} {told[dtypes, kind]}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="*", default=MODELS)
    parser.add_argument("--device", nargs="*", default=DEVICES)
    asked = parser.parse_args()
    print(f"{ROUTING}; {STEPS} steps, batch 1, {CONTEXT} tokens cached; i4: int4 weights, else the checkpoint's")
    heads = "".join(f"{f'{100 * share:.0f}% of HBM':>{WIDTH}}" for share in SHARES)
    print(f"{'model':16} {'device':9} {'DRAM':>5} {'kind':5}{heads}  least GPU memory for {TARGET_TOK_S:g} tok/s")
    for model in asked.model:
        for device in asked.device:
            found = solver(model, device)
            for line in rows(found, model, device):
                print(line, flush=True)


if __name__ == "__main__":
    main()
