"""Every public config of the shared set loads right, or is refused with the reason."""

import pytest

from simtool.errors import InputError
from simtool.models.config import load_architecture
from simtool.models.memory import kv_bytes_per_token, weight_bytes
from simtool.models.parameters import parameter_counts
from tests.shared_data import SHARED, needs_shared

CONFIGS = SHARED / "data" / "model_configs"
# file stem -> what the refusal must name
REFUSED = {
    "deepseek-ai__DeepSeek-V4-Flash": "compress_ratios",
    "deepseek-ai__DeepSeek-V4-Pro": "compress_ratios",
    "sgl-project__DeepSeek-V4-Flash-FP8": "compress_ratios",
    "sgl-project__DeepSeek-V4-Pro-FP8": "compress_ratios",
    "stepfun-ai__Step-3.7-Flash": "num_sliding_attention_heads",
    "stepfun-ai__Step-3.7-Flash-FP8": "num_sliding_attention_heads",
    # ModelOpt checkpoints: how they are quantised stands in another file, which is not beside these.
    "nvidia__Llama-3.1-70B-Instruct-FP8": "quantization_config",
    "nvidia__NVIDIA-Nemotron-3-Super-120B-A12B-FP8": "quantization_config",
    "nvidia__NVIDIA-Nemotron-3-Ultra-550B-A55B-FP8": "quantization_config",
}
# file stem -> (total, KV bytes a token): billions as published (model cards; MiniMax-M3 and Kimi-K3, for which no exact
# number was at hand, as counted from the shapes of their reference code), KV worked out by hand from the config.
LOADED = {
    "MiniMaxAI__MiniMax-M2.5": (230, 62 * 2 * 8 * 128 * 2),
    "MiniMaxAI__MiniMax-M2.7": (230, 62 * 2 * 8 * 128 * 2),
    "MiniMaxAI__MiniMax-M3": (426.2, 60 * 2 * 4 * 128 * 2 + 57 * 128 * 2),
    "Qwen__Qwen3-0.6B": (0.596, 28 * 2 * 8 * 128 * 2),
    "Qwen__Qwen3-1.7B": (1.72, 28 * 2 * 8 * 128 * 2),
    "Qwen__Qwen3-8B": (8.19, 36 * 2 * 8 * 128 * 2),
    "Qwen__Qwen3-32B": (32.8, 64 * 2 * 8 * 128 * 2),
    "Qwen__Qwen3-32B-FP8": (32.8, 64 * 2 * 8 * 128 * 2),
    "Qwen__Qwen3-32B-FP8-Static-PerTensor": (32.8, 64 * 2 * 8 * 128),
    "Qwen__Qwen3-30B-A3B": (30.5, 48 * 2 * 4 * 128 * 2),
    "Qwen__Qwen3-30B-A3B-FP8": (30.5, 48 * 2 * 4 * 128 * 2),
    "Qwen__Qwen3-235B-A22B": (235, 94 * 2 * 4 * 128 * 2),
    "Qwen__Qwen3-235B-A22B-FP8": (235, 94 * 2 * 4 * 128 * 2),
    "Qwen__Qwen3-Coder-480B-A35B-Instruct": (480, 62 * 2 * 8 * 128 * 2),
    "Qwen__Qwen3-VL-2B-Instruct": (1.72, 28 * 2 * 8 * 128 * 2),
    "Qwen__Qwen3-VL-4B-Instruct": (4.02, 36 * 2 * 8 * 128 * 2),
    "Qwen__Qwen3-VL-8B-Instruct": (8.19, 36 * 2 * 8 * 128 * 2),
    "Qwen__Qwen3-VL-32B-Instruct": (32.8, 64 * 2 * 8 * 128 * 2),
    "Qwen__Qwen3-VL-32B-Thinking": (32.8, 64 * 2 * 8 * 128 * 2),
    "Qwen__Qwen3-VL-30B-A3B-Instruct": (30.5, 48 * 2 * 4 * 128 * 2),
    "Qwen__Qwen3-VL-235B-A22B-Instruct": (235, 94 * 2 * 4 * 128 * 2),
    "Qwen__Qwen3.5-27B": (27, 16 * 2 * 4 * 256 * 2),
    "Qwen__Qwen3.5-35B-A3B": (35, 10 * 2 * 2 * 256 * 2),
    "Qwen__Qwen3.5-122B-A10B": (122, 12 * 2 * 2 * 256 * 2),
    "Qwen__Qwen3.5-397B-A17B": (397, 15 * 2 * 2 * 256 * 2),
    "XiaomiMiMo__MiMo-7B-Base": (7.62, 36 * 2 * 8 * 128 * 2),
    "XiaomiMiMo__MiMo-V2-Flash": (309, (9 * 4 + 39 * 8) * (192 + 128) * 2),
    "deepseek-ai__DeepSeek-R1": (671, 61 * 576 * 2),
    "deepseek-ai__DeepSeek-V3": (671, 61 * 576 * 2),
    "deepseek-ai__DeepSeek-V3.2": (671, 61 * (576 * 2 + 132)),
    "google__gemma-4-26B-A4B": (25.2, 25 * 2 * 8 * 256 * 2 + 5 * 2 * 2 * 512 * 2),
    "meta-llama__Llama-4-Maverick-17B-128E-Instruct": (400, 48 * 2 * 8 * 128 * 2),
    "meta-llama__Llama-4-Scout-17B-16E-Instruct": (107.8, 48 * 2 * 8 * 128 * 2),
    "meta-llama__Meta-Llama-3.1-8B": (8.03, 32 * 2 * 8 * 128 * 2),
    "meta-llama__Meta-Llama-3.1-70B": (70.6, 80 * 2 * 8 * 128 * 2),
    "meta-llama__Meta-Llama-3.1-405B": (406, 126 * 2 * 8 * 128 * 2),
    "mistralai__Mixtral-8x7B-v0.1": (46.7, 32 * 2 * 8 * 128 * 2),
    "mistralai__Mixtral-8x22B-v0.1": (141, 56 * 2 * 8 * 128 * 2),
    "moonshotai__Kimi-K2-Instruct": (1030, 61 * 576 * 2),
    "moonshotai__Kimi-K2.5": (1030, 61 * 576 * 2),
    "moonshotai__Kimi-K3": (2779, 24 * 576 * 2),
    "nvidia__Llama-3_3-Nemotron-Super-49B-v1": (49.9, 49 * 2 * 8 * 128 * 2),
    "nvidia__NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": (31.6, 6 * 2 * 2 * 128 * 2),
    "nvidia__NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16": (550, 12 * 2 * 2 * 128 * 2),
    "nvidia__Nemotron-H-56B-Base-8K": (56, 10 * 2 * 8 * 128 * 2),
    "openai__gpt-oss-20b": (20.9, 24 * 2 * 8 * 64 * 2),
    "openai__gpt-oss-120b": (116.8, 36 * 2 * 8 * 64 * 2),
    "zai-org__GLM-5": (744, 78 * (576 * 2 + 132)),
    "zai-org__GLM-5-FP8": (744, 78 * (576 * 2 + 132)),
    "zai-org__GLM-5.1": (744, 78 * (576 * 2 + 132)),
    "zai-org__GLM-5.1-FP8": (744, 78 * (576 * 2 + 132)),
    "zai-org__GLM-5.2": (744, 78 * 576 * 2 + 21 * 132),
    "zai-org__GLM-5.2-FP8": (744, 78 * 576 * 2 + 21 * 132),
    "zai-org__GLM-5.3": (744, 78 * 576 * 2 + 21 * 132),
    "zai-org__GLM-5.3-FP8": (744, 78 * 576 * 2 + 21 * 132),
}


@needs_shared
def test_the_tables_name_every_config():
    assert {path.stem for path in CONFIGS.glob("*.json")} == set(REFUSED) | set(LOADED)


@needs_shared
@pytest.mark.parametrize("stem", sorted(LOADED))
def test_a_config_loads_with_its_published_size_and_exact_cache(stem):
    billions, kv_bytes = LOADED[stem]
    arch = load_architecture(str(CONFIGS / f"{stem}.json"))
    assert parameter_counts(arch).total == pytest.approx(billions * 1e9, rel=0.01)
    assert kv_bytes_per_token(arch) == kv_bytes


@needs_shared
@pytest.mark.parametrize("stem", sorted(REFUSED))
def test_a_config_is_refused_with_the_reason(stem):
    with pytest.raises(InputError, match=REFUSED[stem]):
        load_architecture(str(CONFIGS / f"{stem}.json"))


@needs_shared
def test_a_stated_weight_dtype_opens_a_checkpoint_that_does_not_say_how_it_is_quantised():
    path = str(CONFIGS / "nvidia__Llama-3.1-70B-Instruct-FP8.json")
    assert weight_bytes(load_architecture(path, "fp8")) == pytest.approx(72.7e9, rel=0.01)


@needs_shared
@pytest.mark.parametrize(
    ("stem", "gigabytes"),
    [
        # sizes of the checkpoints' safetensors files on Hugging Face (MTP blocks and encoders as stated)
        ("Qwen__Qwen3-32B-FP8", 34.3),
        ("openai__gpt-oss-120b", 65.2),
        ("openai__gpt-oss-20b", 13.8),
        ("moonshotai__Kimi-K2.5", 595.1),
    ],
)
def test_quantised_weights_take_the_bytes_of_the_checkpoint(stem, gigabytes):
    arch = load_architecture(str(CONFIGS / f"{stem}.json"))
    assert weight_bytes(arch) == pytest.approx(gigabytes * 1e9, rel=0.005)
