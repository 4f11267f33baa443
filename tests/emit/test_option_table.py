"""Names and values are those of the version; what is recorded says where it is from."""

import pytest

from simtool.emit.command import Command
from simtool.emit.option_table import load_table, recorded_versions
from simtool.errors import InputError

SERVE = "vllm serve"


def command(*options):
    return Command(program=SERVE, words=("vllm", "serve", "m"), options=options)


@pytest.mark.parametrize("version", recorded_versions("vllm"))
def test_a_wrong_enum_value_is_refused_also_where_the_parser_takes_it(version):
    with pytest.raises(InputError, match=r"fp9: is not a value .*fp8"):
        command(("--kv-cache-dtype", ("fp9",))).checked(load_table("vllm", version))
    with pytest.raises(InputError, match="fp9"):
        command(("--quantization", ("fp9",))).checked(load_table("vllm", version))


def test_an_option_of_another_version_is_refused():
    with pytest.raises(InputError, match=r"--swap-space: vLLM 0\.33\.0 has no such option"):
        command(("--swap-space", ("4",))).checked(load_table("vllm", "0.33.0"))
    with pytest.raises(InputError, match="no such option"):
        load_table("sglang", "0.5.23").option("sglang.launch_server", "--cuda-graph-max-bs")
    assert load_table("sglang", "0.5.9").has("sglang.launch_server", "--cuda-graph-max-bs")


def test_values_have_the_type_and_number_that_the_option_takes():
    table = load_table("vllm", "0.33.0")
    for options in (("--max-num-seqs", ("many",)), ("--max-num-seqs", ("1", "2")), ("--enforce-eager", ("yes",))):
        with pytest.raises(InputError):
            command(options).checked(table)
    assert command(("--cudagraph-capture-sizes", ("1", "2"))).checked(table)


def test_an_unknown_version_lists_those_recorded():
    with pytest.raises(InputError, match=r"9\.9: no options .*recorded: 0\.33\.0, 0\.24\.0, 0\.19\.1"):
        load_table("vllm", "9.9")


def test_the_newest_version_is_the_default():
    assert load_table("vllm").version == "0.33.0"
    assert load_table("sglang").version == "0.5.23"


@pytest.mark.parametrize("engine", ["vllm", "sglang", "sglang-router", "trtllm", "dynamo", "torchrun"])
def test_every_table_says_where_it_is_from(engine):
    for version in recorded_versions(engine):
        table = load_table(engine, version)
        assert table.version == version
        assert "parser" in table.source
        assert ("not from a parser" in table.source) == (engine == "trtllm")
