"""The bundled catalogue: names, published sizes, KV bytes."""

import json

import pytest

from simtool.errors import InputError
from simtool.models.catalogue import CatalogueEntry, PublishedNumber, catalogue_entry, load_catalogue
from simtool.models.config import load_architecture
from simtool.models.description import describe_model
from simtool.models.memory import kv_bytes_per_token, state_bytes_per_sequence
from simtool.models.parameters import parameter_counts

ENTRIES = {entry.name: entry for entry in load_catalogue()}


def counted_total(entry: CatalogueEntry) -> int:
    counts = parameter_counts(load_architecture(entry.name))
    total = counts.total + (counts.mtp if "mtp" in entry.published_includes else 0)
    return total + (counts.multimodal if "vision" in entry.published_includes else 0)


def test_there_are_at_least_thirty_models_with_unlike_names():
    names = [name for entry in ENTRIES.values() for name in (entry.name, *entry.aliases, entry.hf_id.lower())]
    assert len(ENTRIES) >= 30
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_total_parameters_are_within_one_percent_of_the_published(name):
    published = ENTRIES[name].published_params
    assert published.value > 0
    assert ENTRIES[name].published_source
    assert counted_total(ENTRIES[name]) == pytest.approx(published.value, rel=0.01)


@pytest.mark.parametrize("name", sorted(name for name, entry in ENTRIES.items() if entry.published_active_params.value))
def test_active_parameters_are_within_one_percent_and_the_rounding_of_the_published(name):
    published = ENTRIES[name].published_active_params
    counted = parameter_counts(load_architecture(name)).active
    assert abs(counted - published.value) <= 0.01 * published.value + published.rounding


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_every_model_of_experts_states_its_active_parameters(name):
    counts = parameter_counts(load_architecture(name))
    assert (counts.experts > 0) == (ENTRIES[name].published_active_params.value > 0)


@pytest.mark.parametrize(
    ("name", "kv_bytes"),
    [
        ("llama-3.1-8b", 131072),
        ("llama-3.1-70b", 327680),
        ("llama-2-7b", 524288),
        ("deepseek-v3", 70272),
        ("deepseek-v2-lite", 27 * 576 * 2),
        ("qwen3-32b", 262144),
        ("mixtral-8x7b", 131072),
        ("gpt-oss-120b", 73728),
        ("opt-175b", 96 * 2 * 12288 * 2),
        ("qwen3-next-80b-a3b", 12 * 2 * 2 * 256 * 2),
    ],
)
def test_kv_bytes_per_token_are_exact(name, kv_bytes):
    assert kv_bytes_per_token(load_architecture(name)) == kv_bytes


def test_state_bytes_of_a_hybrid_are_exact():
    # Nemotron 3 Nano: 23 Mamba-2 layers, 64 heads x 64 x 128 in fp32, convolution of 4096 + 2 x 8 x 128 channels x 3.
    expected = 23 * (64 * 64 * 128 * 4 + (64 * 64 + 2 * 8 * 128) * 3 * 2)
    assert state_bytes_per_sequence(load_architecture("nemotron-3-nano-30b-a3b")) == expected


@pytest.mark.parametrize(
    "name", ["Llama-3.1-70B", "meta-llama/Llama-3.1-70B", "meta-llama/Meta-Llama-3.1-70B-Instruct", " llama-3.1-70b "]
)
def test_a_model_is_found_by_name_alias_and_hugging_face_id(name):
    entry = catalogue_entry(name)
    assert entry is not None
    assert entry.name == "llama-3.1-70b"


@pytest.mark.parametrize("name", ["qwen3-1.7b", "qwen3-4b", "qwen3-8b", "qwen3-14b", "qwen3-32b", "gpt-oss-120b"])
def test_the_expected_models_are_there(name):
    assert name in ENTRIES


def test_an_unknown_name_is_an_input_error():
    with pytest.raises(InputError, match="no such model"):
        load_architecture("llama-9-1t")


def test_published_numbers_carry_the_rounding_of_their_last_digit():
    assert PublishedNumber.from_text("37e9") == PublishedNumber(value=37e9, rounding=0.5e9)
    assert PublishedNumber.from_text("3.3e9").rounding == pytest.approx(0.05e9)


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_every_model_can_be_described(name):
    described = describe_model(load_architecture(name))
    assert sum(described["layers_by_kind"].values()) == described["layers"]
    assert described["parameters"] >= described["active_parameters"] > 0
    assert json.loads(json.dumps(described)) == described
    assert described["weight_bytes"] > 0
