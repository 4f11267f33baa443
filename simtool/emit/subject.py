"""Subject: the plan with what an engine needs besides: where its weights are and which devices a replica takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from simtool.emit.command import Options
from simtool.emit.option_table import OptionTable
from simtool.emit.placement import Replica, placed_replicas
from simtool.errors import InputError
from simtool.models.architecture import ModelArchitecture
from simtool.models.catalogue import catalogue_entry
from simtool.models.config import load_architecture
from simtool.models.quantization import UNQUANTISED
from simtool.plan import Plan, Pool

_TORCH_NAMES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_MODEL_HINT = "--model-path names the repository or the folder that the engine is to load"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """model: what the engine loads. served_name: the name that clients ask for. own_checkpoint: the user named it."""

    plan: Plan
    architecture: ModelArchitecture
    model: str
    served_name: str
    own_checkpoint: bool
    replicas: tuple[Replica, ...]

    @property
    def context(self) -> int:
        """The model's own longest context."""
        return self.architecture.max_position_embeddings


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """How the plan's weight dtype comes about: as stored, cast to a float type, or quantised while loading."""

    kind: Literal["as stored", "cast", "quantised on load"]
    dtype: str


def subject_of(plan: Plan, *, model_path: str = "", served_name: str = "") -> Subject:
    """The plan, ready to be written for an engine. Raises InputError where no engine could know what to load."""
    for text, name in ((model_path, "--model-path"), (served_name, "--served-model-name")):
        _check_name(text, name)
    for number, pool in enumerate(plan.pools):
        check_pool(pool, number)
    model = model_path or _repository(plan.model)
    return Subject(
        plan=plan,
        architecture=load_architecture(plan.model, plan.weight_dtype if plan.weight_dtype != "auto" else "auto"),
        model=model,
        served_name=served_name or model,
        own_checkpoint=bool(model_path),
        replicas=placed_replicas(plan),
    )


def check_pool(pool: Pool, number: int) -> None:
    """What no engine can be told."""
    if any(device != pool.device for device in pool.stage_devices):
        rule = f"pools.{number}: its pipeline stages run on different devices ({', '.join(pool.stage_devices)})"
        raise InputError("stage_devices", rule, "engines do not say which device a stage gets; give a pool one device")
    p = pool.parallel
    if p.layers_per_stage and len(p.layers_per_stage) != p.pp:
        raise InputError("layers_per_stage", f"pools.{number}: {len(p.layers_per_stage)} numbers for pp={p.pp}")
    if (p.tp * p.dp) % p.ep:
        raise InputError("ep", f"pools.{number}: ep={p.ep} does not divide tp x dp = {p.tp * p.dp}")


def is_moe(subject: Subject) -> bool:
    """Whether the model has experts."""
    from simtool.models.architecture import MoeMlp

    return any(isinstance(layer.mlp, MoeMlp) for layer in subject.architecture.layers)


def check_experts(subject: Subject, pool: Pool) -> None:
    """Expert parallelism and attention ranks that step together need experts."""
    p = pool.parallel
    if not is_moe(subject) and p.ep > 1:
        raise InputError("ep", f"ep={p.ep} needs a mixture-of-experts model", "leave it at 1")
    if not is_moe(subject) and p.dp > 1:
        raise InputError("dp", f"dp={p.dp} of a dense model is {p.dp} replicas", "say replicas instead")


def check_all2all(pool: Pool, engine: str) -> bool:
    """Whether the pool asks for another exchange than the engine's own. Raises InputError where DeepEP cannot run."""
    p = pool.parallel
    if p.all2all_backend == "allgather_reducescatter":
        return False
    if not p.sends_tokens or p.moe_tp > 1:
        rule = f"{engine}: {p.all2all_backend} sends between dp > 1 ranks that hold whole experts, ep = tp x dp"
        raise InputError("all2all_backend", rule, f"ep={p.tp * p.dp}, or allgather_reducescatter")
    return True


def weights_of(subject: Subject, engine: str, *, quantises: tuple[str, ...]) -> Weights:
    """How the engine gets the plan's weight dtype; `quantises`: the dtypes it makes from a checkpoint of floats.

    Raises InputError where it needs a checkpoint that the plan does not name.
    """
    wanted = subject.plan.weight_dtype
    dtypes = load_architecture(subject.plan.model).dtypes if wanted != "auto" else subject.architecture.dtypes
    stored = {dtypes.attention, dtypes.mlp, dtypes.experts}
    quantised = stored - UNQUANTISED
    if wanted == "auto" or quantised == {wanted}:
        return Weights(kind="as stored", dtype=wanted)
    if wanted in UNQUANTISED and not quantised:
        return Weights(kind="cast", dtype=_TORCH_NAMES[wanted])
    if wanted in quantises and not quantised:
        return Weights(kind="quantised on load", dtype=wanted)
    if subject.own_checkpoint:
        return Weights(kind="as stored", dtype=wanted)
    rule = f"{engine} does not make {wanted} weights of {subject.model}, which stores {', '.join(sorted(stored))}"
    raise InputError("weight_dtype", rule, f"--model-path names a checkpoint that holds {wanted} weights")


def dtype_options(subject: Subject, table: OptionTable) -> Options:
    """The weight dtype as vLLM and SGLang both write it; they quantise to fp8 while loading."""
    weights = weights_of(subject, table.title, quantises=("fp8",))
    match weights.kind:
        case "cast":
            return [("--dtype", (weights.dtype,))]
        case "quantised on load":
            return [("--quantization", (weights.dtype,))]
    return []


def _repository(model: str) -> str:
    """The Hugging Face repository of a catalogue name, or the folder of a checkpoint. Raises InputError: no guesses."""
    entry = catalogue_entry(model)
    if entry is None:
        folder = Path(model) if Path(model).is_dir() else Path(model).parent
        if any(folder.glob("*.safetensors")):
            _check_name(str(folder), "model")
            return str(folder.absolute())
        raise InputError(model, "is a config.json without weights beside it", _MODEL_HINT)
    wanted = model.strip().lower()
    if wanted in (entry.name, entry.hf_id.lower(), entry.hf_id.lower().rpartition("/")[2]):
        return entry.hf_id
    if "/" in model:
        return model.strip()
    raise InputError(model, f"is a variant of {entry.hf_id} whose repository the catalogue does not state", _MODEL_HINT)


def _check_name(text: str, name: str) -> None:
    """Names go into shell words and YAML: quoting takes anything but control characters and a leading dash."""
    if text.startswith("-") or not text.isprintable() or text != text.strip():
        raise InputError(repr(text), f"{name} must be printable and start with no dash", "give a repository or a path")


def check_offload(pool: Pool, title: str, policy: str = "") -> bool:
    """Whether the pool offloads experts. Raises InputError unless by the one policy that the engine has ("": none)."""
    if pool.offload.off:
        return False
    if pool.offload.policy != policy:
        hint = f"--offload {policy},slots=N, or --target torchrun" if policy else "--offload none, or another --target"
        raise InputError("offload", f"{title} has no {pool.offload.policy} offload of experts", hint)
    return True
