"""Shapes: what the kernels of the models to be served look like, read off the lowering."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from simtool.errors import InputError
from simtool.models.architecture import ModelArchitecture
from simtool.models.config import load_architecture
from simtool.models.lowering import lower
from simtool.models.operators import Operator, StepBatch
from simtool.plan import Parallel

_MOE_SIZES = ("hidden", "inter", "top_k", "num_experts", "moe_tp", "moe_ep")
ROPE_MULTIPLE = 128  # the rotary kernel is timed on whole heads of this size


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelShape:
    """The dims of a kernel that the model sets; tokens, batch and length are left open. kernel: its name, or ""."""

    family: str
    sizes: Mapping[str, float]
    kernel: str = ""

    @property
    def key(self) -> tuple[str, str, tuple[tuple[str, float], ...]]:
        """Equal for equal shapes."""
        return self.family, self.kernel, tuple(sorted(self.sizes.items()))


def served_shapes(models: Sequence[str], tp_degrees: Sequence[int]) -> tuple[KernelShape, ...]:
    """Distinct shapes of all models at the degrees that cut them evenly. InputError where a model has none such."""
    found: dict[tuple[str, str, tuple[tuple[str, float], ...]], KernelShape] = {}
    for name in models:
        arch, last = load_architecture(name), None
        before = len(found)
        for parallel in _layouts(tp_degrees):
            try:
                shapes = list(_model_shapes(arch, parallel))
            except InputError as error:  # heads or experts that this degree does not cut, or ep without experts
                last = error
                continue
            found |= {shape.key: shape for shape in shapes}
        if len(found) == before and last is not None:
            raise last
    return tuple(found[key] for key in sorted(found))


def _layouts(tp_degrees: Sequence[int]) -> Iterator[Parallel]:
    """Each degree with experts cut, and with experts spread."""
    for tp in tp_degrees:
        yield Parallel(tp=tp)
        if tp > 1:
            yield Parallel(tp=tp, ep=tp)


def _model_shapes(arch: ModelArchitecture, parallel: Parallel) -> Iterator[KernelShape]:
    for operator in lower(arch, parallel, 0, _mixed_step()):
        yield from _operator_shapes(operator)
    hidden, vocabulary = float(arch.hidden_size), float(arch.vocab_size)
    yield KernelShape(family="elementwise", kernel="norm", sizes={"width": hidden})
    rows = float(arch.vocab_size // parallel.tp)
    yield KernelShape(family="embedding", sizes={"width": hidden, "rows": rows})
    yield KernelShape(family="sampling", sizes={"width": vocabulary})


def _mixed_step() -> StepBatch:
    """A step with prefill, decode and sampling, so that every operator of a model appears."""

    def column(value: float) -> np.ndarray:
        return np.array([value])

    return StepBatch(
        prefill_tokens=column(256.0),
        prefill_requests=column(1.0),
        prefill_context=column(256.0),
        decode_requests=column(8.0),
        decode_kv_tokens=column(4096.0),
        total_tokens=column(264.0),
        sampled=column(9.0),
    )


def _operator_shapes(operator: Operator) -> Iterator[KernelShape]:
    """A windowed attention is measured without its window: plain torch computes what a window hides."""
    dims = {name: float(column[0]) for name, column in operator.dims.items()}
    match operator.family:
        case "gemm":
            if dims["n"] == int(dims["n"]) and dims["k"] == int(dims["k"]):
                yield KernelShape(family="gemm", sizes={"n": dims["n"], "k": dims["k"]})
            if operator.name.removeprefix("shared_").removeprefix("dense_") == "down":
                yield KernelShape(family="elementwise", kernel="silu_mul", sizes={"width": dims["k"]})
        case "moe":
            sizes = {name: dims[name] for name in _MOE_SIZES}
            yield KernelShape(family="moe", sizes=sizes | {"matrices": _matrices(operator, dims)})
        case "attention_prefill" | "attention_decode" if operator.name != "indexer":
            sizes = {"heads": dims["heads"], "kv_heads": dims["kv_heads"], "head_dim": float(round(dims["head_dim"]))}
            yield KernelShape(family=operator.family, sizes=sizes | {"window": 0.0})
            width, kv_width = (_whole_heads(sizes[name] * sizes["head_dim"]) for name in ("heads", "kv_heads"))
            rope = {"width": width, "kv_width": kv_width}
            yield KernelShape(family="elementwise", kernel="rope+write", sizes=rope)
        case "mla_prefill" | "mla_decode":
            yield KernelShape(family=operator.family, sizes={"heads": dims["heads"]})


def _whole_heads(width: float) -> float:
    return -(-width // ROPE_MULTIPLE) * ROPE_MULTIPLE


def _matrices(operator: Operator, dims: Mapping[str, float]) -> float:
    """3 for gated experts, 2 for plain ones: the FLOPs say it."""
    one = 2.0 * dims["tokens"] * dims["top_k"] / dims["moe_ep"] * dims["hidden"] * dims["inter"] / dims["moe_tp"]
    return float(round(float(operator.flops[0]) / one))
