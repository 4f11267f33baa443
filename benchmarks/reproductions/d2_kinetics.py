"""D2: what Qwen3 answers cost by Kinetics: sparse attention, and a bigger model against more samples of a smaller one.

    python benchmarks/reproductions/d2_kinetics.py

P, H and K come from the catalogue. The row gives two numbers and neither prompt nor length, so that c and g are solved
for from them: what is checked is that P, H, K and I leave a solution at all, and a plausible one. The other models and
dense attention are then priced at this c and g. Accuracy is no part of the row: the claim's cost side only is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from scipy.optimize import brentq

from simtool.models.config import load_architecture
from simtool.models.kinetics import KineticsShape, kinetics_shape

PUBLISHED = (177.78e12, 228.41e12)  # compute, memory: Qwen3-8B, AIME24, top-k 256, one sample
BUDGET, INTENSITY = 256, 562.5
MODELS = ("qwen3-0.6b", "qwen3-1.7b", "qwen3-4b", "qwen3-8b", "qwen3-14b", "qwen3-32b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Mean tokens of a prompt and an answer."""

    prompt: float
    generated: float


def solve(shape: KineticsShape) -> Question:
    """The prompt and length that give both published numbers. ValueError where none does."""
    read = PUBLISHED[1] / (4 * shape.kv_elements * INTENSITY)
    generated = (PUBLISHED[0] - 4 * read * shape.query_elements) / (2 * shape.parameters)

    def missing(prompt: float) -> float:
        return shape.cost(prompt, generated, budget=BUDGET, intensity=INTENSITY).memory_flops - PUBLISHED[1]

    return Question(prompt=float(brentq(missing, 0.0, float(BUDGET))), generated=generated)


def affordable(small: KineticsShape, large: KineticsShape, question: Question, budget: int = 0) -> float:
    """Samples of the small model for the cost of one of the large (linear between whole ones)."""
    wanted = large.cost(question.prompt, question.generated, budget=budget).total_flops
    one, two = (small.cost(question.prompt, question.generated, n, budget).total_flops for n in (1, 2))
    return 1 + (wanted - one) / (two - one)


def main() -> None:
    shapes = {name: kinetics_shape(load_architecture(name)) for name in MODELS}
    question = solve(shapes["qwen3-8b"])
    print(f"solved for: c = {question.prompt:.1f}, g = {question.generated:.1f} tokens")
    cost = shapes["qwen3-8b"].cost(question.prompt, question.generated, budget=BUDGET)
    for name, published, found in zip(
        ("compute", "memory"), PUBLISHED, (cost.compute_flops, cost.memory_flops), strict=True
    ):
        print(f"Qwen3-8B {name:8} published {published / 1e12:7.2f}, computed {found / 1e12:7.2f} TeFLOPs")
    print("one sample, TeFLOPs: dense (compute + memory), top-k 256, ratio")
    for name, shape in shapes.items():
        dense = shape.cost(question.prompt, question.generated)
        sparse = shape.cost(question.prompt, question.generated, budget=BUDGET).total_flops
        print(
            f"   {name:11} {dense.compute_flops / 1e12:7.1f} + {dense.memory_flops / 1e12:7.1f}"
            f"  {sparse / 1e12:7.1f}  {dense.total_flops / sparse:5.1f}"
        )
    print("samples for the cost of one of the next model: parameters alone, dense, top-k 256")
    for small, large in pairwise(MODELS):
        alone = shapes[large].parameters / shapes[small].parameters
        dense_n, sparse_n = (affordable(shapes[small], shapes[large], question, b) for b in (0, BUDGET))
        print(f"   {small:11} -> {large:11} {alone:5.2f} {dense_n:5.2f} {sparse_n:5.2f}")


if __name__ == "__main__":
    main()
