"""Reading a Hugging Face config.json (or a bundled catalogue name) into a ModelArchitecture."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from simtool.errors import InputError
from simtool.models.architecture import ActiveScope, ModelArchitecture, WeightDtypes
from simtool.models.catalogue import catalogue_entry
from simtool.models.config_check import check_architecture
from simtool.models.config_context import context_limit_tokens
from simtool.models.config_dense import (
    Decoder,
    llama_decoder,
    mimo_decoder,
    mistral_decoder,
    opt_decoder,
    phi3_decoder,
    qwen2_decoder,
    qwen3_decoder,
)
from simtool.models.config_fields import ConfigFields
from simtool.models.config_gemma import gemma2_decoder, gemma3_decoder, gemma4_decoder
from simtool.models.config_hybrid import (
    kimi_linear_decoder,
    nemotron_h_decoder,
    nemotron_nas_decoder,
    qwen_hybrid_decoder,
)
from simtool.models.config_moe import (
    deepseek_decoder,
    gpt_oss_decoder,
    mixtral_decoder,
    phimoe_decoder,
    qwen_moe_decoder,
)
from simtool.models.config_quantization import apply_quantization, storage_dtype
from simtool.models.config_vision import (
    gemma4_vision_params,
    kimi_vision_params,
    llama4_vision_params,
    qwen_vision_params,
    siglip_params,
)
from simtool.models.config_windowed import (
    glm4_moe_decoder,
    llama4_decoder,
    mimo_v2_decoder,
    minimax_m2_decoder,
    minimax_m3_decoder,
    step_decoder,
)
from simtool.models.quantization import with_weight_dtype

_QUANTISED_NAME = re.compile(r"(?i)[-_](fp8|nvfp4|mxfp4|fp4|awq|gptq|int4|int8|w4a16|w8a8)(?=[-_]|$)")
MAX_CONFIG_BYTES = 4 * 2**20  # the largest real config (per-module quantisation lists) is under 1 MiB

# model_type -> reader. Each reader follows the transformers class of that name.
FAMILIES: Mapping[str, Callable[[ConfigFields], Decoder]] = {
    "llama": llama_decoder,
    "mistral": mistral_decoder,
    "mixtral": mixtral_decoder,
    "qwen2": qwen2_decoder,
    "qwen2_moe": qwen_moe_decoder,
    "qwen3": qwen3_decoder,
    "qwen3_moe": qwen_moe_decoder,
    "qwen3_vl_text": qwen3_decoder,
    "qwen3_vl_moe_text": qwen_moe_decoder,
    "phi3": phi3_decoder,
    "phimoe": phimoe_decoder,
    "opt": opt_decoder,
    "mimo": mimo_decoder,
    "gpt_oss": gpt_oss_decoder,
    "deepseek_v2": deepseek_decoder,
    "deepseek_v3": deepseek_decoder,
    "deepseek_v32": deepseek_decoder,
    "kimi_k2": deepseek_decoder,
    "glm_moe_dsa": deepseek_decoder,
    "glm4_moe": glm4_moe_decoder,
    "llama4_text": llama4_decoder,
    "minimax_m2": minimax_m2_decoder,
    "minimax_m3": minimax_m3_decoder,
    "mimo_v2_flash": mimo_v2_decoder,
    "step3p5": step_decoder,
    "step3p7": step_decoder,
    "gemma2": gemma2_decoder,
    "gemma3_text": gemma3_decoder,
    "gemma4_text": gemma4_decoder,
    "qwen3_next": qwen_hybrid_decoder,
    "qwen3_5_text": qwen_hybrid_decoder,
    "qwen3_5_moe_text": qwen_hybrid_decoder,
    "nemotron_h": nemotron_h_decoder,
    "nemotron-nas": nemotron_nas_decoder,
    "kimi_linear": kimi_linear_decoder,
}
# Multimodal wrappers whose decoder is the object under `text_config`, and how their encoder is counted (None: the
# encoder's shapes are not modelled, it is left out of extra_params).
WRAPPERS: Mapping[str, Callable[[ConfigFields, ConfigFields], int] | None] = {
    "qwen3_vl": qwen_vision_params,
    "qwen3_vl_moe": qwen_vision_params,
    "qwen3_5": qwen_vision_params,
    "qwen3_5_moe": qwen_vision_params,
    "kimi_k25": kimi_vision_params,
    "kimi_k3": None,
    "llama4": llama4_vision_params,
    "gemma3": siglip_params,
    "gemma4": gemma4_vision_params,
    "step3p7": None,
}
# Class defaults that released checkpoints rely on (transformers Gemma3TextConfig).
CLASS_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "gemma3_text": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
    },
}
# What publishers call active parameters, where it is not everything: gpt-oss leaves out the input embedding (model
# card, arXiv:2508.10925), GLM embedding and LM head (report, arXiv:2508.06471, table 1); the others' published numbers
# agree with the scope given here.
ACTIVE_SCOPES: Mapping[str, ActiveScope] = {
    "gpt_oss": "without_embedding",
    "deepseek_v2": "without_embedding",
    "deepseek_v3": "without_embedding",
    "deepseek_v32": "without_embedding",
    "kimi_k2": "without_embedding",
    "kimi_linear": "without_embedding",
    "minimax_m2": "layers",
    "minimax_m3": "layers",
    "mimo_v2_flash": "without_embedding",
    "glm4_moe": "layers",
    "glm_moe_dsa": "layers",
    "qwen3_next": "layers",
}
# Architectures with parts that no type here describes, and which part that is.
REFUSED: Mapping[str, str] = {
    "deepseek_v4": "compress_ratios (compressed sparse attention, grouped output projection, hyper-connections)",
    "deepseek_ref": "compress_ratios (DeepSeek-V4 compressed sparse attention)",
    "gemma3n_text": "per-layer input embeddings",
}


def load_architecture(name_or_path: str, weight_dtype: str = "auto") -> ModelArchitecture:
    """The architecture of a bundled name, of a Hugging Face id in the catalogue, of a config.json or of its folder.

    weight_dtype other than "auto" replaces the storage dtype of the layers (`with_weight_dtype`). Raises InputError for
    an unknown name, an unreadable file, a config with a part that simtool does not model, or a file whose name says
    that it is quantised while nothing in it says how.
    """
    return with_weight_dtype(_load(name_or_path, stated=weight_dtype == "auto"), weight_dtype)


def _load(name_or_path: str, *, stated: bool) -> ModelArchitecture:
    entry = catalogue_entry(name_or_path)
    if entry is not None:
        parsed = parse_config(entry.config, entry.name)
        return replace(
            parsed,
            source=f"Hugging Face {entry.hf_id}",
            published_params=entry.published_params.value,
            published_active_params=entry.published_active_params.value,
        )
    path = _config_path(name_or_path)
    data = dict(read_json_object(path))
    beside = path.parent / "hf_quant_config.json"  # ModelOpt checkpoints keep their quantisation in this file
    if path.name == "config.json" and "quantization_config" not in data and beside.is_file():
        data["quantization_config"] = {"quant_method": "modelopt", **read_json_object(beside)}
    name = path.parent.name if path.name == "config.json" and path.parent.name else path.stem
    architecture = parse_config(data, name)
    mark = _QUANTISED_NAME.search(name)
    if stated and mark and not _states_quantization(data):
        rule = f"the name says {mark[0].strip('-_')}, but the file has no quantization_config"
        raise InputError(name, rule, "put hf_quant_config.json beside config.json, or give --weight-dtype")
    return replace(architecture, source=str(path))


def _config_path(text: str) -> Path:
    """The config.json that `text` names: itself, or in the folder it names. Raises InputError where there is none."""
    try:
        path = Path(text).expanduser()
        path = path / "config.json" if path.is_dir() else path
        known = path.exists() or path.suffix == ".json"
    except (OSError, RuntimeError):  # a name no file can have, an unknown user's home
        known = False
    if not text.strip() or not known:
        raise InputError(text[:80], "no such model", "`simtool models` lists the names; or give a config.json's path")
    return path


def _states_quantization(data: Mapping[str, Any]) -> bool:
    inner = data.get("text_config")
    return bool(data.get("quantization_config") or (isinstance(inner, Mapping) and inner.get("quantization_config")))


def read_json_object(path: Path) -> Mapping[str, Any]:
    """A JSON object from a file of bounded size. Raises InputError, naming the file, for anything else."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_CONFIG_BYTES + 1)
        if len(text) > MAX_CONFIG_BYTES:
            raise InputError(path, f"is larger than {MAX_CONFIG_BYTES} bytes", "give a model's config.json")
        data = json.loads(text.decode("utf-8"))
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}", "give the path of a config.json") from error
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(path, f"is not valid JSON: {error}", "the file may be truncated") from error
    if not isinstance(data, dict):
        raise InputError(path, "must hold a JSON object", "give a model's config.json")
    return data


def parse_config(data: Mapping[str, Any], name: str) -> ModelArchitecture:
    """The architecture that the config states. Raises InputError naming the key or layer kind it cannot model."""
    outer = ConfigFields(data=data, path=name)
    fields = decoder_fields(outer)
    model_type = fields.text("model_type")
    decoder = FAMILIES[model_type](fields)
    tied = fields.flag("tie_word_embeddings", default=outer.value(("tie_word_embeddings",), decoder.tied_default))
    dtype = storage_dtype(fields, outer)
    architecture = ModelArchitecture(
        name=name,
        hidden_size=fields.size("hidden_size"),
        vocab_size=fields.size("vocab_size"),
        layers=decoder.layers,
        tie_word_embeddings=tied,
        max_position_embeddings=context_limit_tokens(fields),
        dtypes=_uniform_dtypes(dtype),
        kv_dtype=dtype,
        activation_dtype=dtype,
        mtp_layers=decoder.mtp_layers,
        final_norm_params=decoder.final_norm_params,
        position_params=decoder.position_params,
        extra_params=encoder_params(outer, fields),
        mtp_params=decoder.mtp_params,
        model_type=model_type,
        active_scope=ACTIVE_SCOPES.get(model_type, "all"),
    )
    check_architecture(architecture)
    return apply_quantization(architecture, fields, outer)


def decoder_fields(outer: ConfigFields) -> ConfigFields:
    """The object that describes the decoder: `text_config` of a multimodal wrapper, else the file itself."""
    model_type = outer.text("model_type")
    fields = outer
    if model_type in WRAPPERS and outer.has("text_config"):
        fields = outer.child("text_config")
        model_type = fields.text("model_type")
    if model_type in REFUSED:
        raise InputError(f"model_type={model_type}", f"{outer.path}: not supported", REFUSED[model_type])
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise InputError(f"model_type={model_type}", f"{outer.path}: not supported", f"known: {known}")
    defaults = CLASS_DEFAULTS.get(model_type, {})
    missing = {key: value for key, value in defaults.items() if not fields.has(key)}
    return replace(fields, data={**fields.data, **missing})


def encoder_params(outer: ConfigFields, fields: ConfigFields) -> int:
    """Parameters of the vision encoder, 0 where the file has none or its shapes are not modelled."""
    count = WRAPPERS.get(outer.text("model_type"))
    if count is None or not outer.has("vision_config"):
        return 0
    return count(outer.child("vision_config"), fields)


def _uniform_dtypes(dtype: str) -> WeightDtypes:
    return WeightDtypes(
        attention=dtype,
        mlp=dtype,
        experts=dtype,
        shared_experts=dtype,
        embedding=dtype,
        lm_head=dtype,
        recurrent=dtype,
        other=dtype,
    )
