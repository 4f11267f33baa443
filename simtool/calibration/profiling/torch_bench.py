"""TorchBench: the machine it runs on as the device under test, through plain torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from simtool.calibration.points import KernelPoint, Timing
from simtool.calibration.profiling import kernels_attention, kernels_gemm, kernels_memory
from simtool.calibration.profiling.arena import Arena
from simtool.calibration.profiling.bench import CannotMeasureError, Extra
from simtool.calibration.profiling.clock import Clock, CpuClock, MakeCall
from simtool.calibration.profiling.cpu_setup import cache_bytes, keep_freed_memory
from simtool.calibration.profiling.design import Limits, work_of
from simtool.calibration.profiling.extras import torch_extras
from simtool.calibration.profiling.kernels_gemm import FLOATS
from simtool.calibration.profiling.machine import device_name, machine_facts
from simtool.errors import InputError

CPU_CACHES = 1.25  # the arena in last-level caches, so that nothing stays cached until it comes round again
LEAST_CPU_ARENA_BYTES, MOST_CPU_ARENA_BYTES = 2**28, 2**30  # at least a rank's experts of a small model
PROBE_SIZE = 192  # rows of the fp32 product that tells whether the CPU runs at its usual speed: 0.1 ms, cached
CUDA_MEMORY_SHARE, MOST_CUDA_ARENA_BYTES = 0.15, 24 * 2**30  # a dtype; outputs and graphs need room too

Builder = Callable[[Arena, KernelPoint], MakeCall]
BUILDERS: Mapping[str, Builder] = {
    "gemm": kernels_gemm.gemm,
    "moe": kernels_gemm.moe,
    "attention_prefill": kernels_attention.prefill,
    "attention_decode": kernels_attention.decode,
    "mla_prefill": kernels_attention.mla_prefill,
    "mla_decode": kernels_attention.mla_decode,
    "elementwise": kernels_memory.elementwise,
    "embedding": kernels_memory.embedding,
    "sampling": kernels_memory.sampling,
}
KERNELS: Mapping[str, str] = {
    "attention_prefill": "paged_sdpa",
    "attention_decode": "paged_sdpa",
    "mla_prefill": "paged_sdpa_value_padded",
    "mla_decode": "paged_absorbed_bmm",
    "embedding": "embedding",
    "sampling": "softmax_argmax",
}
GEMM_KERNELS: Mapping[str, str] = {
    "fp32": "mm",
    "fp16": "mm",
    "bf16": "mm",
    "fp8": "scaled_mm+cast",
    "int8_wo": "weight_int8pack_mm",
    "int4": "weight_int4pack_mm",
}
SMALL_GEMM = {"m": 16.0, "n": 128.0, "k": 256.0}
SMALL_PREFILL = {"batch": 1.0, "prefix": 0.0, "heads": 8.0, "kv_heads": 2.0, "head_dim": 128.0, "window": 0.0}
SMALL_MOE = {"tokens": 16.0, "hidden": 128.0, "inter": 128.0, "top_k": 2.0, "num_experts": 4.0}
SMALL_MOE |= {"moe_tp": 1.0, "moe_ep": 1.0, "matrices": 3.0}


class TorchBench:
    """The CPU (one thread) or the current CUDA device. models: to be served. clock: for tests, in place of its own."""

    def __init__(
        self,
        device: str,
        seed: int,
        *,
        models: Sequence[str] = (),
        clock: Clock | None = None,
        arena_bytes: int = 0,
    ) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError("cuda", "is not there", "cpu, or a torch that sees the GPU")
        self._kind = device
        self._models = tuple(models)
        if device == "cpu":
            torch.set_num_threads(1)
            keep_freed_memory()
        self._arena = Arena(device, arena_bytes or usual_arena_bytes(device), seed)
        self._clock = clock or self._usual_clock()
        self._known: dict[tuple[str, str], str] = {}

    @property
    def device(self) -> str:
        """The catalogue name, or one made of the CPU's own."""
        return device_name(self._kind)

    @property
    def version(self) -> str:
        """Of torch."""
        return str(torch.__version__)

    def usual_dtypes(self) -> tuple[str, ...]:
        """bf16 where the device multiplies it natively (fp8 beside it where it works), else fp32 (CPU) or fp16."""
        if self._kind == "cpu":
            native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
            return ("bf16",) if native() else ("fp32",)
        major, minor = torch.cuda.get_device_capability()
        if major < 8:
            return ("fp16",)
        return ("bf16", "fp8") if (major, minor) >= (8, 9) else ("bf16",)

    def facts(self, dtypes: Sequence[str]) -> Mapping[str, str | float]:
        """Facts of the machine, and the rates that the design guesses seconds with."""
        copied = self._arena.size_bytes // 8
        copy = self._clock.time(lambda: _copy(self._arena.take("uint8", copied)))
        rates = {"design_bytes_per_s": _rounded(2.0 * copied / copy.seconds)}
        for dtype in dtypes:
            rates[f"design_flops_{dtype}"] = _rounded(self._gemm_rate(dtype))
            if dtype in FLOATS:
                rates[f"design_attention_flops_{dtype}"] = _rounded(self._attention_rate(dtype))
        return {**machine_facts(self._kind), "arena_bytes": float(self._arena.size_bytes), **rates}

    def limits(self, facts: Mapping[str, str | float], dtype: str) -> Limits:
        """A call takes up to some 20 ms on the CPU, 10 ms on a GPU; it reads no more than an arena holds."""
        cpu = self._kind == "cpu"
        gemm = float(facts.get(f"design_flops_{dtype}", 1e12))  # absent only for what multiplies nothing
        return Limits(
            seconds=0.02 if cpu else 0.01,
            call_bytes=0.9 * float(facts["arena_bytes"]),
            flops_per_s=gemm,
            attention_flops_per_s=float(facts.get(f"design_attention_flops_{dtype}", gemm)),
            bytes_per_s=float(facts["design_bytes_per_s"]),
            most_tokens=4096.0 if cpu else 16384.0,
            most_batch=128.0 if cpu else 512.0,
            most_prefill_batch=1.0 if cpu else 8.0,
            longest_context=16384.0 if cpu else 131072.0,
        )

    def kernel(self, family: str, dtype: str, shape_kernel: str) -> str:
        """The name of what runs. CannotMeasureError where the dtype has no kernel here."""
        if family == "gemm":
            return self._gemm_kernel(dtype)
        if dtype not in FLOATS:
            raise CannotMeasureError(f"plain torch has no {family} kernel of {dtype}")
        if family == "moe":
            return self._moe_kernel(dtype)
        if shape_kernel == "norm":
            return "add+rms_norm"
        return shape_kernel or KERNELS[family]

    def measure(self, point: KernelPoint) -> Timing:
        """Time a kernel call. CannotMeasureError where it does not fit or has no kernel."""
        try:
            return self._clock.time(BUILDERS[point.family](self._arena, point))
        except (MemoryError, RuntimeError, ValueError) as error:  # NotImplementedError is a RuntimeError
            raise CannotMeasureError(first_line(error)) from None

    def sentinel(self) -> float:
        """Seconds of one and the same GEMM."""
        m, n = (32, 1024) if self._kind == "cpu" else (4096, 4096)
        dims = {"m": float(m), "n": float(n), "k": float(n)}
        dtype = self.usual_dtypes()[0]
        return self.measure(KernelPoint(family="gemm", dtype=dtype, kernel="mm", dims=dims)).seconds

    def extras(self) -> Sequence[Extra]:
        """Host times, copies, pairs at once, collectives."""
        return torch_extras(self._kind, self._arena, self._clock, self.usual_dtypes()[0], self._models)

    def _usual_clock(self) -> Clock:
        if self._kind == "cpu":
            square = torch.randn(PROBE_SIZE, PROBE_SIZE)
            return CpuClock(probe=lambda: square @ square)
        from simtool.calibration.profiling.clock_cuda import CudaClock

        return CudaClock(self._arena)

    def _gemm_kernel(self, dtype: str) -> str:
        if dtype == "fp8" and self._kind == "cpu":
            raise CannotMeasureError("a CPU has no fp8 units; torch multiplies element by element")
        point = KernelPoint(family="gemm", dtype=dtype, kernel=GEMM_KERNELS[dtype], dims=SMALL_GEMM)
        self._try(point)
        return GEMM_KERNELS[dtype]

    def _moe_kernel(self, dtype: str) -> str:
        """One grouped GEMM on a GPU that has it; a loop over the experts elsewhere (on a CPU they are the same)."""
        if self._kind == "cuda" and hasattr(torch, "_grouped_mm"):
            name = "grouped_mm+silu+route"
            point = KernelPoint(family="moe", dtype=dtype, kernel=f"{name}:balanced", dims=SMALL_MOE)
            try:
                self._try(point)
            except CannotMeasureError:
                return "expert_loop+silu+route"
            return name
        return "expert_loop+silu+route"

    def _try(self, point: KernelPoint) -> None:
        """Run a small call the first time that its kernel is asked for: on a GPU it must also go into a graph."""
        key = (point.kernel, point.dtype)
        if key not in self._known:
            try:
                make = BUILDERS[point.family](self._arena, point)
                if self._kind == "cuda":
                    self._clock.time(make)
                else:
                    make()()
                self._known[key] = ""
            except (MemoryError, RuntimeError, ValueError, AttributeError, TypeError) as error:
                self._known[key] = first_line(error)
        if self._known[key]:
            raise CannotMeasureError(self._known[key])

    def _gemm_rate(self, dtype: str) -> float:
        """FLOP/s of a middling GEMM; of bf16 for what only stores its weights narrower, or has no kernel here."""
        used = dtype if dtype in FLOATS else "bf16"
        m, n = (256, 2048) if self._kind == "cpu" else (4096, 4096)
        dims = {"m": float(m), "n": float(n), "k": float(n)}
        timing = self._clock.time(
            kernels_gemm.gemm(self._arena, KernelPoint(family="gemm", dtype=used, kernel="mm", dims=dims))
        )
        return 2.0 * m * n * n / timing.seconds

    def _attention_rate(self, dtype: str) -> float:
        """FLOP/s of a middling prefill, which on a CPU is far below a GEMM's."""
        dims = SMALL_PREFILL | {"seq": 512.0 if self._kind == "cpu" else 4096.0}
        point = KernelPoint(family="attention_prefill", dtype=dtype, kernel=KERNELS["attention_prefill"], dims=dims)
        return float(work_of([point]).flops[0]) / self.measure(point).seconds


def usual_arena_bytes(device: str) -> int:
    """More than the last-level cache of a CPU; a share of a GPU's memory, for long caches."""
    if device == "cpu":
        return min(max(int(CPU_CACHES * cache_bytes()), LEAST_CPU_ARENA_BYTES), MOST_CPU_ARENA_BYTES)
    free, _ = torch.cuda.mem_get_info()
    return min(int(CUDA_MEMORY_SHARE * free), MOST_CUDA_ARENA_BYTES)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, and of what kind it is."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]


def _copy(source: torch.Tensor) -> Callable[[], object]:
    return lambda: source.clone()


def _rounded(rate: float) -> float:
    """Two digits: the guess of a point's seconds needs no more."""
    return float(f"{rate:.1e}")
