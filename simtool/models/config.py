"""Reading a Hugging Face config.json (or a bundled catalogue name) into a ModelArchitecture."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from simtool.errors import InputError
from simtool.models.architecture import ModelArchitecture, WeightDtypes
from simtool.models.catalogue import catalogue_entry
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
from simtool.models.config_moe import (
    deepseek_decoder,
    gpt_oss_decoder,
    mixtral_decoder,
    phimoe_decoder,
    qwen_moe_decoder,
)
from simtool.models.config_quantization import apply_quantization, storage_dtype

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
}
# Multimodal wrappers whose decoder is the object under `text_config`.
WRAPPERS = frozenset({"qwen3_vl", "qwen3_vl_moe", "kimi_k25"})


def load_architecture(name_or_path: str) -> ModelArchitecture:
    """The architecture of a bundled name, of a Hugging Face id in the catalogue, of a config.json or of its folder.

    Raises InputError for an unknown name, an unreadable file, or a config with a part that simtool does not model.
    """
    entry = catalogue_entry(name_or_path)
    if entry is not None:
        parsed = parse_config(entry.config, entry.name)
        return replace(
            parsed,
            source=f"https://huggingface.co/{entry.hf_id}",
            published_params=entry.published_params,
            published_active_params=entry.published_active_params,
        )
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        path = path / "config.json"
    if not path.exists() and path.suffix != ".json":
        hint = "`simtool models` lists the names; or give the path of a config.json"
        raise InputError(name_or_path, "no such model", hint)
    data = dict(read_json_object(path))
    beside = path.parent / "hf_quant_config.json"  # ModelOpt checkpoints keep their quantisation in this file
    if path.name == "config.json" and "quantization_config" not in data and beside.is_file():
        data["quantization_config"] = {"quant_method": "modelopt", **read_json_object(beside)}
    name = path.parent.name if path.name == "config.json" and path.parent.name else path.stem
    return replace(parse_config(data, name), source=str(path))


def read_json_object(path: Path) -> Mapping[str, Any]:
    """A JSON object from a file of bounded size. Raises InputError, naming the file, for anything else."""
    try:
        size = path.stat().st_size
        if size > MAX_CONFIG_BYTES:
            raise InputError(path, f"is larger than {MAX_CONFIG_BYTES} bytes", "give a model's config.json")
        data = json.loads(path.read_text(encoding="utf-8"))
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
        max_position_embeddings=fields.size("max_position_embeddings"),
        dtypes=_uniform_dtypes(dtype),
        kv_dtype=dtype,
        activation_dtype=dtype,
        mtp_layers=decoder.mtp_layers,
        final_norm_params=decoder.final_norm_params,
        position_params=decoder.position_params,
        mtp_params=decoder.mtp_params,
        model_type=model_type,
    )
    return apply_quantization(architecture, fields, outer)


def decoder_fields(outer: ConfigFields) -> ConfigFields:
    """The object that describes the decoder: `text_config` of a multimodal wrapper, else the file itself."""
    model_type = outer.text("model_type")
    if model_type in WRAPPERS and outer.has("text_config"):
        inner = outer.child("text_config")
        model_type = inner.text("model_type")
        if model_type in FAMILIES:
            return inner
    elif model_type in FAMILIES:
        return outer
    raise InputError(
        f"model_type={model_type}", f"{outer.path}: not supported", f"known: {', '.join(sorted(FAMILIES))}"
    )


def _uniform_dtypes(dtype: str) -> WeightDtypes:
    names = ("attention", "mlp", "experts", "shared_experts", "embedding", "lm_head", "recurrent", "other")
    return WeightDtypes(**dict.fromkeys(names, dtype))
