"""Reading config.json: what is wrong is an InputError that names it; nothing is guessed."""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtool.errors import InputError
from simtool.models.architecture import Attention, MoeMlp, RecurrentMixer
from simtool.models.catalogue import load_catalogue
from simtool.models.config import load_architecture, parse_config
from simtool.models.parameters import parameter_counts

CONFIGS = {entry.name: entry.config for entry in load_catalogue()}
LLAMA = CONFIGS["llama-3.1-8b"]


def without(config, key):
    return {name: value for name, value in config.items() if name != key}


@pytest.mark.parametrize(
    "key",
    [
        "model_type",
        "num_hidden_layers",
        "hidden_size",
        "num_attention_heads",
        "intermediate_size",
        "vocab_size",
        "max_position_embeddings",
    ],
)
def test_a_missing_essential_key_is_named(key):
    with pytest.raises(InputError, match=key):
        parse_config(without(LLAMA, key), "m")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("qwen3-32b", "num_key_value_heads"),
        ("mistral-7b", "sliding_window"),
        ("mixtral-8x7b", "num_local_experts"),
        ("qwen3-30b-a3b", "moe_intermediate_size"),
        ("gpt-oss-20b", "sliding_window"),
        ("deepseek-v3", "kv_lora_rank"),
        ("deepseek-v3", "first_k_dense_replace"),
        ("gemma-2-9b", "head_dim"),
        ("llama-4-scout", "attention_chunk_size"),
        ("qwen3.5-27b", "linear_num_value_heads"),
        ("nemotron-3-nano-30b-a3b", "ssm_state_size"),
        ("mimo-v2-flash", "hybrid_layer_pattern"),
    ],
)
def test_a_missing_key_of_a_family_is_named(name, key):
    config = copy.deepcopy(dict(CONFIGS[name]))
    config.get("text_config", config).pop(key)
    if key == "sliding_window" and name == "mistral-7b":
        # MistralConfig's default (4096) is wrong for the later releases, which state null: so it must be stated.
        with pytest.raises(InputError, match=key):
            parse_config(config, "m")
        return
    with pytest.raises(InputError, match=key):
        parse_config(config, "m")


def test_a_llama_without_kv_heads_has_as_many_as_attention_heads():
    mixer = parse_config(without(LLAMA, "num_key_value_heads"), "m").layers[0].mixer
    assert isinstance(mixer, Attention)
    assert mixer.num_kv_heads == 32


@pytest.mark.parametrize("value", ["4096", 4096.5, -1, 0, True, [4096], {}, 10**12, float("nan")])
def test_a_malformed_size_is_an_input_error(value):
    with pytest.raises(InputError, match="hidden_size"):
        parse_config({**LLAMA, "hidden_size": value}, "m")


def test_an_unknown_model_type_is_refused_by_name():
    with pytest.raises(InputError, match="model_type=gpt2"):
        parse_config({**LLAMA, "model_type": "gpt2"}, "m")


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("gpt-oss-20b", "layer_types", ["sliding_attention"] * 23 + ["ring_attention"]),
        ("gpt-oss-20b", "layer_types", ["full_attention"] * 23),
        ("nemotron-3-nano-30b-a3b", "hybrid_override_pattern", "MEX"),
        ("nemotron-3-nano-30b-a3b", "mamba_proj_bias", True),
        ("deepseek-v3", "topk_method", "expert_choice"),
        ("deepseek-v3", "attention_bias", True),
        ("minimax-m2", "attn_type_list", [0] * 62),
        ("opt-6.7b", "word_embed_proj_dim", 512),
        ("llama-3.1-8b", "torch_dtype", "float8"),
        ("llama-3.1-8b", "num_hidden_layers", 10**6),
        ("llama-3.1-8b", "num_attention_heads", 33),
        ("llama-3.1-8b", "num_key_value_heads", 5),
        ("qwen3-30b-a3b", "num_experts_per_tok", 200),
        ("deepseek-v3", "n_group", 3),
    ],
)
def test_a_part_that_is_not_modelled_is_refused_by_its_key(name, key, value):
    with pytest.raises(InputError) as caught:
        parse_config({**CONFIGS[name], key: value}, "m")
    assert key in str(caught.value) or "layers" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "{", '{"model_type": "llama"', "[1, 2]", "null", '"llama"', "\x00\x01", "[" * 100_000]
)
def test_a_file_that_is_no_json_object_is_an_input_error(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"config\.json"):
        load_architecture(str(path))


def test_a_file_that_is_too_large_or_not_text_is_an_input_error(tmp_path):
    large, binary = tmp_path / "large.json", tmp_path / "binary.json"
    large.write_text(" " * (5 * 2**20))
    binary.write_bytes(b"\xff\xfe\x80\x81")
    for path in (large, binary):
        with pytest.raises(InputError, match=path.name):
            load_architecture(str(path))


def test_a_missing_file_and_an_empty_folder_are_input_errors(tmp_path):
    for path in (tmp_path / "config.json", tmp_path, tmp_path / "nothing"):
        with pytest.raises(InputError):
            load_architecture(str(path))


@pytest.mark.parametrize("name", ["", " ", "x" * 5000, "a\0b", "~no-such-user/x", "/dev/zero", "nothing/here"])
def test_a_name_that_no_model_has_is_an_input_error(name):
    with pytest.raises(InputError):
        load_architecture(name)


def test_a_folder_and_a_file_load_alike_and_take_the_folder_name(tmp_path):
    folder = tmp_path / "my-llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(dict(LLAMA)))
    by_folder, by_file = load_architecture(str(folder)), load_architecture(str(folder / "config.json"))
    assert by_folder == by_file
    assert by_folder.name == "my-llama"
    assert parameter_counts(by_folder) == parameter_counts(load_architecture("llama-3.1-8b"))


def test_windows_follow_the_config():
    gemma = load_architecture("gemma-3-27b")
    windows = [layer.mixer.window for layer in gemma.layers if isinstance(layer.mixer, Attention)]
    assert windows[:6] == [1024] * 5 + [0]
    assert sum(window == 0 for window in windows) == 10
    scout = load_architecture("llama-4-scout").layers
    assert [layer.mixer.window for layer in scout[:4] if isinstance(layer.mixer, Attention)] == [8192] * 3 + [0]
    qwen = {**CONFIGS["qwen3-8b"], "use_sliding_window": True, "sliding_window": 512, "max_window_layers": 30}
    layers = parse_config(qwen, "m").layers
    assert [layer.mixer.window for layer in layers if isinstance(layer.mixer, Attention)] == [0] * 30 + [512] * 6


@pytest.mark.parametrize(
    ("name", "rope", "limit"),
    [
        ("qwen3-32b", None, 40960),
        ("qwen3-32b", {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}, 131072),
        ("llama-2-7b", {"type": "linear", "factor": 8.0}, 32768),
        ("llama-3.1-8b", {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}, 131072),
        ("deepseek-v3", {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096}, 163840),
    ],
)
def test_the_context_limit_includes_rotary_scaling(name, rope, limit):
    assert parse_config({**CONFIGS[name], "rope_scaling": rope}, "m").max_position_embeddings == limit


def test_hybrids_are_sequences_of_unlike_layers():
    nemotron = load_architecture("nemotron-3-nano-30b-a3b").layers
    assert sum(isinstance(layer.mixer, RecurrentMixer) for layer in nemotron) == 23
    assert sum(isinstance(layer.mlp, MoeMlp) for layer in nemotron) == 23
    assert all((layer.mixer is None) != (layer.mlp is None) for layer in nemotron)
    qwen = load_architecture("qwen3.5-397b-a17b").layers
    assert [isinstance(layer.mixer, Attention) for layer in qwen[:4]] == [False, False, False, True]


def test_dense_first_layers_and_tied_embeddings():
    deepseek = load_architecture("deepseek-v3").layers
    assert [isinstance(layer.mlp, MoeMlp) for layer in deepseek[:4]] == [False, False, False, True]
    assert parameter_counts(load_architecture("qwen3-4b")).lm_head == 0
    assert parameter_counts(load_architecture("qwen3-8b")).lm_head == 151936 * 4096


def test_step_models_have_more_heads_in_sliding_layers():
    # Step-3.5-Flash: 197B total, 11B active a token (its model card: 196B and 11B).
    config = {
        "model_type": "step3p5",
        "num_hidden_layers": 45,
        "hidden_size": 4096,
        "num_attention_heads": 64,
        "num_attention_groups": 8,
        "head_dim": 128,
        "attention_other_setting": {"num_attention_heads": 96},
        "layer_types": (["full_attention"] + ["sliding_attention"] * 3) * 11 + ["full_attention"],
        "sliding_window": 512,
        "intermediate_size": 11264,
        "moe_num_experts": 288,
        "moe_top_k": 8,
        "moe_intermediate_size": 1280,
        "share_expert_dim": 1280,
        "moe_layers_enum": ",".join(str(index) for index in range(3, 45)),
        "vocab_size": 128896,
        "max_position_embeddings": 262144,
        "tie_word_embeddings": False,
    }
    counts = parameter_counts(parse_config(config, "step"))
    assert counts.total == pytest.approx(196.8e9, rel=0.01)
    assert counts.active_layers == pytest.approx(11e9, rel=0.01)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_no_config_makes_more_layers_than_memory_holds(name):
    """Also counts that the released file does not state, and in the part of a multimodal file that has the language."""
    keys = ("num_hidden_layers", "num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules")
    for key in keys:
        config = copy.deepcopy(dict(CONFIGS[name]))
        config.get("text_config", config)[key] = 10**9
        try:
            arch = parse_config(config, "damaged")
        except InputError:
            continue
        assert len(arch.layers) + len(arch.mtp_layers) < 10_000


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10**10),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.one_of(st.none(), st.integers(-2, 300), st.text(max_size=4)), max_size=4),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)


@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_a_damaged_config_loads_or_is_an_input_error(data):
    config = copy.deepcopy(dict(CONFIGS[data.draw(st.sampled_from(sorted(CONFIGS)))]))
    target = config
    for _ in range(3):
        inner = [key for key, value in target.items() if isinstance(value, dict)]
        if not inner or data.draw(st.booleans()):
            break
        target = target[data.draw(st.sampled_from(sorted(inner)))]
    key = data.draw(st.sampled_from(sorted(target)))
    if data.draw(st.booleans()):
        del target[key]
    else:
        target[key] = data.draw(ODD)
    try:
        arch = parse_config(config, "damaged")
    except InputError:
        return
    assert parameter_counts(arch).total > 0
