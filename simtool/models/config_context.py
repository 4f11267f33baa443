"""The longest context a config allows, rotary scaling included."""

from __future__ import annotations

from collections.abc import Mapping

from simtool.models.config_fields import ConfigFields


def context_limit_tokens(fields: ConfigFields) -> int:
    """max_position_embeddings, stretched as vLLM does (vllm/config/model.py, _get_and_verify_max_len).

    yarn: original_max_position_embeddings × factor; linear and dynamic: × factor; llama3, longrope and su already state
    the stretched limit, and so does Gemma 3, whose factor is for its full layers only.
    """
    limit = fields.size("max_position_embeddings")
    for key in ("rope_scaling", "rope_parameters"):
        if fields.has(key) and isinstance(fields.data[key], Mapping):
            rope = fields.child(key)
            break
    else:
        return limit
    kind = rope.value(("rope_type", "type"), "default")
    if fields.text("model_type").startswith("gemma3"):
        return limit
    if kind == "yarn" and rope.has("original_max_position_embeddings"):
        return round(rope.size("original_max_position_embeddings") * rope.number("factor"))
    if kind in ("linear", "dynamic", "yarn"):
        return round(limit * rope.number("factor"))
    return limit
