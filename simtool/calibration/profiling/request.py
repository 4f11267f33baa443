"""ProfileRequest: what to measure, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from simtool.calibration.points import POINT_DIMS
from simtool.errors import InputError

EXTRAS = ("host", "copies", "contention", "collectives")
FAMILIES = (*POINT_DIMS, *EXTRAS)
DTYPES = ("fp32", "fp16", "bf16", "fp8", "int8_wo", "int4")
# Small enough for one CPU thread: a dense model, a smaller one, and one with latent attention and experts.
CPU_MODELS, CPU_TP = ("llama-3.1-8b", "qwen3-0.6b", "deepseek-v2-lite"), (8,)
CUDA_MODELS = ("llama-3.1-8b", "llama-3.1-70b", "qwen3-30b-a3b", "deepseek-v3")
CUDA_TP = (1, 8)
SIZES = ("max_num_batched_tokens", "max_num_seqs", "max_model_len")
LONGEST_BUDGET_S = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRequest:
    """models: catalogue names or config.json paths, whose shapes at the tensor-parallel degrees `tp` are measured.

    max_num_batched_tokens, max_num_seqs, max_model_len: the largest step, decode batch and context to be served, beyond
    which nothing is measured (0: as far as the device is usually asked for).
    device: where. dtypes: of weights and cache; empty: what the device computes in best. families: see FAMILIES.
    """

    device: Literal["cpu", "cuda"]
    budget_s: float
    models: tuple[str, ...] = ()
    tp: tuple[int, ...] = ()
    dtypes: tuple[str, ...] = ()
    families: tuple[str, ...] = FAMILIES
    max_num_batched_tokens: int = 0
    max_num_seqs: int = 0
    max_model_len: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda"):
            raise InputError(self.device, "is no device to profile", "cpu or cuda")
        if not 0 < self.budget_s <= LONGEST_BUDGET_S:
            raise InputError(self.budget_s, "is no budget", f"seconds up to {LONGEST_BUDGET_S:.0f}")
        if not 0 <= self.seed < 2**31:
            raise InputError(self.seed, "is no seed", "a whole number from 0 below 2^31")
        for names, known in ((self.families, FAMILIES), (self.dtypes, DTYPES)):
            for name in names:
                if name not in known:
                    raise InputError(name, "cannot be profiled", f"one of {', '.join(known)}")
        if not self.families:
            raise InputError("families", "are none", f"some of {', '.join(FAMILIES)}")
        for name in SIZES:
            if not 0 <= getattr(self, name) < 2**31:
                raise InputError(f"{name} = {getattr(self, name)}", "must be at least 1", "leave it out for the usual")
        if any(degree < 1 for degree in self.tp):
            raise InputError(",".join(map(str, self.tp)), "holds a tensor-parallel degree below 1", "as 1,8")

    @property
    def served_models(self) -> tuple[str, ...]:
        """The models, or the device's usual ones."""
        return self.models or (CPU_MODELS if self.device == "cpu" else CUDA_MODELS)

    @property
    def tp_degrees(self) -> tuple[int, ...]:
        """The degrees, or the device's usual ones."""
        return self.tp or (CPU_TP if self.device == "cpu" else CUDA_TP)

    def as_text(self, dtypes: tuple[str, ...]) -> Mapping[str, str]:
        """What a rerun has to ask again to go on with a journal: all but the budget. dtypes: those really used."""
        return {
            "device": self.device,
            "models": ",".join(self.served_models),
            "tp": ",".join(str(degree) for degree in self.tp_degrees),
            "dtypes": ",".join(dtypes),
            "families": ",".join(self.families),
            **{name: str(getattr(self, name)) for name in SIZES if getattr(self, name)},
        }
