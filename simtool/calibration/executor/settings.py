"""RunSettings: what really ran, and where it differs from what was asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from simtool.calibration.executor.job import Job
from simtool.calibration.executor.options import FLOATS
from simtool.calibration.executor.request import ExecuteRequest
from simtool.errors import InputError
from simtool.hardware.measured_device import slug
from simtool.hardware.own_cluster import own_cluster
from simtool.models.architecture import DenseMlp, ModelArchitecture, MoeMlp
from simtool.plan import Overlap, Plan
from simtool.step_schedule import StepSchedule


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """device: "cpu" or "cuda". activation_dtype: of activations and float weights. weight_dtypes, kv_dtype: as stored.

    offload_experts: experts a layer kept on the device (0: all). overlap: shared experts on a stream of their own.
    nano_batches: parts of a step that run in turns (1: steps are whole).
    seed: of weights and prompts.
    """

    device: str
    activation_dtype: str
    weight_dtypes: tuple[str, ...]
    kv_dtype: str
    offload_experts: int
    overlap: bool
    nano_batches: int
    seed: int


def settings_of(job: Job, request: ExecuteRequest, device: str) -> RunSettings:
    """What runs of `request`."""
    return RunSettings(
        device=device,
        activation_dtype=job.compute_dtype,
        weight_dtypes=_stored(job.architecture, job.compute_dtype),
        kv_dtype=job.compute_dtype,
        offload_experts=max(pool.offload.slots for pool in job.plan.pools),
        overlap=any(pool.overlap.branch_stream for pool in job.plan.pools)
        and not _overlap_lacks(job.architecture, device),
        nano_batches=max(
            request.schedule.nano_batches if request.schedule else 1,
            *(len(pool.overlap.nano_batches) for pool in job.plan.pools),
        ),
        seed=request.seed,
    )


def differences(job: Job, request: ExecuteRequest, device: str, environment: Mapping[str, str | float]) -> list[str]:
    """What of the request does not happen, and on what else than the plan's devices it does: a note each."""
    return [*_request_notes(job, request, device), *_device_notes(job.plan, str(environment.get("device", "")))]


def _request_notes(job: Job, request: ExecuteRequest, device: str) -> Iterator[str]:
    wanted = job.architecture.activation_dtype
    if job.compute_dtype != wanted:
        yield f"activations and float weights in {job.compute_dtype}, not the model's {wanted} that is predicted"
    if request.record_routing and device == "cuda":
        yield "CUDA graphs off: a graph does not tell which experts it chose"
    overlaps = [pool.overlap for pool in job.plan.pools]
    if any(overlap.branch_stream for overlap in overlaps) and (lack := _overlap_lacks(job.architecture, device)):
        yield f"no overlap: {lack}"
    if request.schedule is not None:
        yield from _schedule_notes(request.schedule, device)
    if any(len(overlap.nano_batches) > 1 for overlap in overlaps):
        yield (
            "nano-batches one after the other: a CPU has one stream"
            if device == "cpu"
            else "nano-batches on a stream each; not in CUDA graphs of decodes, which run whole"
        )
    if any(_more(overlap) for overlap in overlaps):
        yield "no overlap but of shared experts and nano-batches: other kernels run one after the other"


def _schedule_notes(schedule: StepSchedule, device: str) -> Iterator[str]:
    where = "one call after the other: a CPU has one stream" if device == "cpu" else "on its streams, no CUDA graphs"
    yield f"steps like {schedule.batch} in {schedule.nano_batches} nano-batches as the schedule says, {where}"
    yield "other steps run whole: of other kinds, of fewer requests, or whose nano-batches share pages that are filled"
    if any(len(launch.nano_batches) > 1 for kind in schedule.kinds for launch in kind.launches):
        yield "what the schedule launches once for several nano-batches runs once for each of them"


def _device_notes(plan: Plan, here: str) -> Iterator[str]:
    planned = dict.fromkeys(name for pool in plan.pools for name in pool.stage_devices or (pool.device,))
    for name in planned:
        own = _own_name(plan, name)
        if here and here != own and not here.startswith(f"{own}-"):  # "cpu": all that a plan without profiles says
            yield f"ran on {here}, and the plan is for {name if own == name else f'{name} ({own})'}: " + _OTHER


_OTHER = "what is measured is not what the plan predicts"


def _own_name(plan: Plan, name: str) -> str:
    """What the device calls itself: a profile knows, where the plan has one."""
    try:
        types = own_cluster(plan.cluster, plan.profiles).types
    except InputError:  # an emitted plan has left its profiles behind
        return name
    return next((slug(device.architecture) for device in types if device.name == name and not device.catalogued), name)


def _more(overlap: Overlap) -> bool:
    """Whether the overlap asks for more than the executor has."""
    return bool(overlap.fusions or overlap.attention_stream or overlap.kv_transfer)


def _mixtures(arch: ModelArchitecture) -> list[MoeMlp]:
    return [layer.mlp for layer in arch.layers if isinstance(layer.mlp, MoeMlp)]


def _overlap_lacks(arch: ModelArchitecture, device: str) -> str:
    """Why shared experts do not run beside the routed ones ("": they do)."""
    if not any(mlp.shared_intermediate_size for mlp in _mixtures(arch)):
        return "the model has no shared experts"
    return "a CPU runs them one after the other" if device == "cpu" else ""


def _stored(arch: ModelArchitecture, compute: str) -> tuple[str, ...]:
    """Dtypes of the layers' weights; floats are cast to that of activations."""
    found = set()
    for layer in arch.layers:
        dtypes = layer.dtypes or arch.dtypes
        found |= {dtypes.attention, dtypes.mlp if isinstance(layer.mlp, DenseMlp) else dtypes.experts}
    return tuple(sorted({compute if dtype in FLOATS else dtype for dtype in found}))
