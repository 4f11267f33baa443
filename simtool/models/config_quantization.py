"""`quantization_config` of a checkpoint: which module groups are stored in which dtype, with which block scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from simtool.models.architecture import (
    Attention,
    DenseMlp,
    LatentAttention,
    Layer,
    ModelArchitecture,
    MoeMlp,
    RecurrentMixer,
    WeightDtypes,
)
from simtool.models.config_fields import ConfigFields
from simtool.models.config_ignore import IgnoreList, ignore_list

GROUPS = ("attention", "mlp", "experts", "shared_experts", "recurrent")
_FLOAT_BITS = {8: "fp8", 4: "fp4"}
_INTEGER_BITS = {8: "int8", 4: "int4"}
# Where checkpoints keep their layers: plain, multimodal (two habits), Nemotron-H.
_PREFIXES = ("model.layers", "model.language_model.layers", "language_model.model.layers", "backbone.layers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """What a quantization_config says. scale_bytes None: the dtype's usual block. groups: the groups it covers."""

    dtype: str
    ignore: IgnoreList
    scale_bytes: float | None = None
    kv_dtype: str = ""
    groups: tuple[str, ...] = GROUPS


def apply_quantization(arch: ModelArchitecture, fields: ConfigFields, outer: ConfigFields) -> ModelArchitecture:
    """`arch` with the storage dtypes its quantization_config states; without one, unchanged.

    Raises InputError for a method or a mixture that simtool does not model.
    """
    holder = fields if fields.has("quantization_config") else outer
    if not holder.has("quantization_config"):
        return arch
    quantization = parse_quantization(holder.child("quantization_config"))
    kept = [_kept_groups(layer, index, quantization, holder) for index, layer in enumerate(arch.layers)]
    dtypes = replace(arch.dtypes, scale_bytes_per_element=quantization.scale_bytes)
    for group in quantization.groups:
        holding = [index for index, layer in enumerate(arch.layers) if group in module_names(layer)]
        if any(group not in kept[index] for index in holding):
            dtypes = _with_group(dtypes, (group,), quantization.dtype)
    layers = []
    for layer, groups in zip(arch.layers, kept, strict=True):
        own = _with_group(dtypes, groups, arch.dtypes.attention)
        layers.append(layer if own == dtypes else replace(layer, dtypes=own))
    return replace(arch, layers=tuple(layers), dtypes=dtypes, kv_dtype=quantization.kv_dtype or arch.kv_dtype)


def _with_group(dtypes: WeightDtypes, groups: Sequence[str], dtype: str) -> WeightDtypes:
    return replace(
        dtypes,
        attention=dtype if "attention" in groups else dtypes.attention,
        mlp=dtype if "mlp" in groups else dtypes.mlp,
        experts=dtype if "experts" in groups else dtypes.experts,
        shared_experts=dtype if "shared_experts" in groups else dtypes.shared_experts,
        recurrent=dtype if "recurrent" in groups else dtypes.recurrent,
    )


def parse_quantization(config: ConfigFields) -> Quantization:
    """The dtype, block scales and ignored modules. Raises InputError for a method that simtool does not model."""
    method = config.text("quant_method", default="modelopt" if config.has("quant_algo", "quantization") else "")
    match method:
        case "fp8" | "fbgemm_fp8":
            return Quantization(dtype="fp8", ignore=_ignored(config), scale_bytes=_fp8_scale_bytes(config))
        case "mxfp4":
            # transformers' mxfp4 quantiser and vLLM's replace expert layers only.
            return Quantization(dtype="mxfp4", ignore=_ignored(config), groups=("experts",))
        case "compressed-tensors":
            return _compressed_tensors(config)
        case "modelopt" | "modelopt_fp4":
            return _modelopt(config)
        case "awq" | "gptq":
            return _grouped_integer(config, method)
        case "bitsandbytes" if config.flag("load_in_8bit", default=False):
            return Quantization(dtype="int8", ignore=_ignored(config))
    raise config.unsupported(
        "quant_method", method or None, "fp8, fbgemm_fp8, mxfp4, compressed-tensors, modelopt, awq, gptq"
    )


def _fp8_scale_bytes(config: ConfigFields) -> float:
    """One fp32 scale a block; without weight_block_size one a tensor (nothing an element)."""
    if not config.has("weight_block_size"):
        return 0.0
    rows, columns = config.sizes("weight_block_size", 2)
    if rows < 1 or columns < 1:
        raise config.unsupported("weight_block_size", [rows, columns])
    return 4.0 / (rows * columns)


def _compressed_tensors(config: ConfigFields) -> Quantization:
    groups = config.child("config_groups")
    weights = [groups.child(name).child("weights") for name in groups.data]
    if not weights:
        raise config.unsupported("config_groups", groups.data, "at least one group of weights")
    schemes = {_weight_scheme(item) for item in weights}
    if len(schemes) > 1:
        raise config.unsupported("config_groups", sorted(groups.data), "one scheme for all weights")
    dtype, scale_bytes = schemes.pop()
    return Quantization(
        dtype=dtype, scale_bytes=scale_bytes, ignore=_ignored(config), kv_dtype=_cache_dtype(config, "kv_cache_scheme")
    )


def _weight_scheme(weights: ConfigFields) -> tuple[str, float]:
    """(dtype, scale bytes an element): group scales are bf16, or one byte for the 4-bit floats."""
    bits, kind = weights.size("num_bits"), weights.text("type", default="int")
    dtype = (_FLOAT_BITS if kind == "float" else _INTEGER_BITS).get(bits)
    if dtype is None:
        raise weights.unsupported("num_bits", f"{bits} {kind}", "8 or 4 bits")
    size = weights.size("group_size", default=0, minimum=0)
    if dtype == "fp4":
        return ("mxfp4" if size == 32 else "nvfp4"), 1 / (size or 16)
    zero_point = 0.0 if weights.flag("symmetric", default=True) or not size else bits / 8 / size
    return dtype, (2.0 / size if size else 0.0) + zero_point


def _modelopt(config: ConfigFields) -> Quantization:
    inner = config.child("quantization") if config.has("quantization") else config
    algorithm = inner.text("quant_algo").upper()
    cache = _cache_dtype(inner, "kv_cache_scheme") or _cache_dtype(inner, "kv_cache_quant_algo")
    known = {
        "FP8": ("fp8", 0.0),
        "FP8_PB_WO": ("fp8", 4 / 128**2),
        "NVFP4": ("nvfp4", 1 / 16),
        "MXFP4": ("mxfp4", 1 / 32),
    }
    if algorithm not in known:
        raise inner.unsupported("quant_algo", algorithm, "FP8, FP8_PB_WO, NVFP4 or MXFP4 (one for all layers)")
    dtype, scale_bytes = known[algorithm]
    return Quantization(dtype=dtype, scale_bytes=scale_bytes, ignore=_ignored(inner), kv_dtype=cache)


def _grouped_integer(config: ConfigFields, method: str) -> Quantization:
    """AWQ and GPTQ: fp16 scales and zero points of the weight's width a group; group_size -1: one a column."""
    config.refuse("dynamic")  # GPTQModel's per-module overrides
    bits = config.size("bits", "w_bit")
    if bits not in _INTEGER_BITS:
        raise config.unsupported("bits", bits, f"{method} with 4 or 8")
    group = config.value(("group_size", "q_group_size"))
    if not isinstance(group, int) or group == 0 or group < -1:
        raise config.unsupported("group_size", group)
    scale_bytes = 0.0 if group == -1 else (2 + bits / 8) / group
    return Quantization(dtype=_INTEGER_BITS[bits], scale_bytes=scale_bytes, ignore=_ignored(config))


def _cache_dtype(config: ConfigFields, key: str) -> str:
    """KV cache dtype from a scheme ("FP8" or {"num_bits": 8, "type": "float"}); "" where none is given."""
    found: Any = config.data.get(key)
    if found in (None, "", "auto"):
        return ""
    if isinstance(found, Mapping):
        found = f"{'fp' if found.get('type') == 'float' else 'int'}{found.get('num_bits')}"
    known = {"fp8": "fp8", "int8": "int8", "nvfp4": "nvfp4"}
    if not isinstance(found, str) or found.lower() not in known:
        raise config.unsupported(key, found, "FP8")
    return known[found.lower()]


def _ignored(config: ConfigFields) -> IgnoreList:
    for key in ("modules_to_not_convert", "ignore", "exclude_modules", "ignored_layers", "llm_int8_skip_modules"):
        if config.has(key):
            found = config.data[key]
            if not isinstance(found, list):
                raise config.unsupported(key, found, "a list of module names")
            return ignore_list(found, f"{config.path}.{key}")
    return IgnoreList()


def _kept_groups(layer: Layer, index: int, quantization: Quantization, holder: ConfigFields) -> list[str]:
    """Groups of layer `index` that the ignore list leaves as they were."""
    kept = []
    for group, names in module_names(layer).items():
        if group not in quantization.groups or _group_ignored(names, index, quantization.ignore, holder):
            kept.append(group)
    return kept


def _group_ignored(names: tuple[tuple[str, ...], ...], index: int, ignore: IgnoreList, holder: ConfigFields) -> bool:
    """Whether all modules of a group are ignored, under any of the names checkpoints give them."""
    if not ignore.exact and not ignore.patterns:
        return False
    for prefix in _PREFIXES:
        for spelling in names:
            covered = [ignore.covers(f"{prefix}.{index}.{name}") for name in spelling]
            if all(covered):
                return True
            if any(covered):
                module = spelling[covered.index(True)]
                raise holder.unsupported("quantization_config", module, "only a part of the group is left unquantised")
    return False


def module_names(layer: Layer) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Module group -> the spellings of its modules inside a layer, for the groups the layer has."""
    names: dict[str, tuple[tuple[str, ...], ...]] = {}
    match layer.mixer:
        case Attention():
            projections = ("q_proj", "k_proj", "v_proj", "o_proj")
            names["attention"] = tuple(tuple(f"{at}.{item}" for item in projections) for at in ("self_attn", "mixer"))
        case LatentAttention():
            names["attention"] = (tuple(f"self_attn.{item}" for item in ("kv_a_proj_with_mqa", "kv_b_proj", "o_proj")),)
        case RecurrentMixer():
            names["recurrent"] = (("linear_attn.out_proj",), ("mixer.in_proj", "mixer.out_proj"), ("self_attn.o_proj",))
    match layer.mlp:
        case DenseMlp():
            names["mlp"] = (("mlp.up_proj", "mlp.down_proj"), ("mixer.up_proj", "mixer.down_proj"))
        case MoeMlp():
            names |= _expert_names(layer.mlp)
    return names


def _expert_names(mlp: MoeMlp) -> dict[str, tuple[tuple[str, ...], ...]]:
    places = ("mlp", "block_sparse_moe", "mixer", "feed_forward")
    pair = ("up_proj", "down_proj")
    names = {"experts": tuple(tuple(f"{at}.experts.0.{item}" for item in pair) for at in places)}
    if mlp.shared_intermediate_size:
        shared = [f"{at}.{name}" for at in places for name in ("shared_experts", "shared_expert")]
        names["shared_experts"] = tuple(tuple(f"{at}.{item}" for item in pair) for at in shared)
    if mlp.dense_intermediate_size:
        names["mlp"] = (("mlp.up_proj", "mlp.down_proj"),)
    return names


def storage_dtype(fields: ConfigFields, outer: ConfigFields) -> str:
    """dtype of unquantised weights: `torch_dtype` (`dtype` since transformers 4.56), of the decoder or the file."""
    known = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
    for holder in (fields, outer):
        if holder.has("dtype", "torch_dtype"):
            found = holder.text("dtype", "torch_dtype").removeprefix("torch.")
            if found not in known:
                raise holder.unsupported("torch_dtype", found, ", ".join(known))
            return known[found]
    # vLLM serves a checkpoint without a stated dtype as 16-bit (float32, transformers' default, is cast down).
    return "bf16"
