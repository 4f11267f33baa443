"""Storage dtypes as the checkpoint states them."""

import json

import pytest

from simtool.errors import InputError
from simtool.models.catalogue import load_catalogue
from simtool.models.config import load_architecture, parse_config
from simtool.models.memory import kv_bytes_per_token, weight_bytes
from simtool.models.parameters import parameter_counts
from simtool.models.quantization import bytes_per_element, with_weight_dtype

CONFIGS = {entry.name: entry.config for entry in load_catalogue()}
LLAMA, MIXTRAL, DEEPSEEK = (CONFIGS[name] for name in ("llama-3.1-8b", "mixtral-8x7b", "deepseek-v3"))


def quantised(config, **quantization):
    return parse_config({**config, "quantization_config": quantization}, "m")


def matrices(arch):
    """Elements of attention and dense matrices of a llama-like model."""
    counts = parameter_counts(arch)
    return counts.layers - sum(layer.norm_params for layer in arch.layers)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("bf16", 2.0),
        ("fp32", 4.0),
        ("fp8", 1 + 4 / 16384),
        ("mxfp4", 0.53125),
        ("nvfp4", 0.5625),
        ("int4", 0.5 + 2.5 / 128),
        ("int8", 1.0),
    ],
)
def test_bytes_an_element_include_block_scales(dtype, expected):
    assert bytes_per_element(dtype) == expected


def test_the_checkpoint_layout_overrides_the_usual_scales():
    assert bytes_per_element("int4", 2 / 32) == 0.5625
    assert bytes_per_element("bf16", 2 / 32) == 2.0
    with pytest.raises(InputError, match="fp3"):
        bytes_per_element("fp3")


@pytest.mark.parametrize(
    ("quantization", "dtype", "each"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8", 1 + 4 / 16384),
        ({"quant_method": "fp8", "activation_scheme": "static"}, "fp8", 1.0),
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"}, "int4", 0.5 + 2.5 / 128),
        ({"quant_method": "gptq", "bits": 4, "group_size": 64}, "int4", 0.5 + 2.5 / 64),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, "int8", 1.0),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4", 0.5625),
        ({"quant_method": "modelopt", "quantization": {"quant_algo": "FP8"}}, "fp8", 1.0),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "int8", 1.0),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"a": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "int"}}},
                "ignore": ["lm_head"],
            },
            "int8",
            1.0,
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"a": {"weights": {"num_bits": 4, "type": "int", "group_size": 128}}},
            },
            "int4",
            0.5 + 2 / 128,
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"a": {"weights": {"num_bits": 4, "type": "float", "group_size": 16}}},
            },
            "nvfp4",
            0.5625,
        ),
    ],
)
def test_each_method_gives_its_dtype_and_bytes(quantization, dtype, each):
    arch = quantised(LLAMA, **quantization)
    assert (arch.dtypes.attention, arch.dtypes.mlp) == (dtype, dtype)
    assert (arch.dtypes.embedding, arch.dtypes.lm_head, arch.dtypes.other) == ("bf16", "bf16", "bf16")
    counts = parameter_counts(arch)
    assert weight_bytes(arch) == pytest.approx(matrices(arch) * each + (counts.total - matrices(arch)) * 2)


@pytest.mark.parametrize(
    "quantization",
    [
        {"quant_method": "exl2"},
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {"quant_method": "awq", "bits": 3, "group_size": 128},
        {"quant_method": "awq", "bits": 4, "group_size": 0},
        {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"},
        {"quant_method": "fp8", "weight_block_size": [128]},
        {"quant_method": "fp8", "modules_to_not_convert": "lm_head"},
        {"quant_method": "fp8", "modules_to_not_convert": ["re:(a+)+b"]},
        {"quant_method": "fp8", "modules_to_not_convert": ["re:["]},
        {"quant_method": "fp8", "modules_to_not_convert": ["self_attn.o_proj"]},
        {"quant_method": "compressed-tensors", "config_groups": {}},
        {
            "quant_method": "compressed-tensors",
            "config_groups": {
                "a": {"weights": {"num_bits": 4, "type": "int"}},
                "b": {"weights": {"num_bits": 8, "type": "int"}},
            },
        },
        {},
    ],
)
def test_what_is_not_modelled_is_refused(quantization):
    if not quantization:
        with pytest.raises(InputError):
            parse_config({**LLAMA, "quantization_config": [1]}, "m")
        return
    with pytest.raises(InputError):
        quantised(LLAMA, **quantization)


def test_mxfp4_covers_experts_only():
    arch = quantised(MIXTRAL, quant_method="mxfp4")
    assert (arch.dtypes.experts, arch.dtypes.attention) == ("mxfp4", "bf16")


@pytest.mark.parametrize(
    "ignored",
    [["self_attn"], ["re:.*self_attn.*"], ["model.layers.*.self_attn*"], ["q_proj", "k_proj", "v_proj", "o_proj"]],
)
def test_ignored_groups_keep_their_dtype(ignored):
    arch = quantised(MIXTRAL, quant_method="fp8", modules_to_not_convert=ignored)
    assert (arch.dtypes.experts, arch.dtypes.attention) == ("fp8", "bf16")
    assert all(layer.dtypes is None for layer in arch.layers)


def test_single_ignored_layers_carry_their_own_dtypes():
    arch = quantised(LLAMA, quant_method="fp8", modules_to_not_convert=["model.layers.0.mlp", "model.layers.31"])
    own = {index: layer.dtypes for index, layer in enumerate(arch.layers) if layer.dtypes is not None}
    assert sorted(own) == [0, 31]
    assert (own[0].attention, own[0].mlp) == ("fp8", "bf16")
    assert (own[31].attention, own[31].mlp) == ("bf16", "bf16")
    whole = quantised(LLAMA, quant_method="fp8")
    assert weight_bytes(arch) - weight_bytes(whole) == 2 * 3 * 4096 * 14336 + 2 * 4096 * (4096 + 1024)


def test_the_cache_dtype_follows_the_scheme():
    arch = quantised(LLAMA, quant_method="modelopt", quant_algo="FP8", kv_cache_scheme="FP8")
    assert arch.kv_dtype == "fp8"
    assert kv_bytes_per_token(arch) == 65536
    dense = {"a": {"weights": {"num_bits": 8, "type": "float"}}}
    scheme = {"num_bits": 8, "type": "float"}
    arch = quantised(LLAMA, quant_method="compressed-tensors", config_groups=dense, kv_cache_scheme=scheme)
    assert arch.kv_dtype == "fp8"


def test_a_model_optimizer_file_beside_the_config_counts(tmp_path):
    folder = tmp_path / "Llama-3.1-8B-FP8"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(dict(LLAMA)))
    with pytest.raises(InputError, match="quantization_config"):
        load_architecture(str(folder))
    stated = {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}}
    (folder / "hf_quant_config.json").write_text(json.dumps(stated))
    arch = load_architecture(str(folder))
    assert (arch.dtypes.attention, arch.dtypes.lm_head, arch.kv_dtype) == ("fp8", "bf16", "fp8")


def test_with_weight_dtype_changes_layers_and_leaves_the_rest():
    arch = parse_config(DEEPSEEK, "m")
    assert with_weight_dtype(arch, "auto") == arch
    plain = with_weight_dtype(arch, "bf16")
    assert weight_bytes(plain) == 2 * parameter_counts(arch).total
    four = with_weight_dtype(arch, "int4")
    assert (four.dtypes.experts, four.dtypes.lm_head, four.dtypes.other) == ("int4", "bf16", "bf16")
    assert weight_bytes(four) < weight_bytes(arch) < weight_bytes(plain)
    mixed = quantised(LLAMA, quant_method="fp8", modules_to_not_convert=["model.layers.0"])
    assert all(layer.dtypes is None for layer in with_weight_dtype(mixed, "fp8").layers)
    with pytest.raises(InputError, match="weight dtype"):
        with_weight_dtype(arch, "fp7")
