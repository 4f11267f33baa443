"""A reduced model keeps the kinds of layers and their order."""

import pytest

from simtool.errors import InputError
from simtool.models.architecture import DenseMlp, MoeMlp
from simtool.models.config import load_architecture
from simtool.models.reduced import reduced


def kinds(arch):
    return "".join("D" if isinstance(layer.mlp, DenseMlp) else "M" for layer in arch.layers)


@pytest.mark.parametrize(("layers", "wanted"), [(1, "M"), (2, "DM"), (4, "DMMM"), (8, "DMMMMMMM")])
def test_dense_layers_stay_in_front_of_the_experts(layers, wanted):
    assert kinds(reduced(load_architecture("deepseek-v2-lite"), layers)) == wanted


def test_alternating_windows_stay_alternating():
    arch = load_architecture("gpt-oss-20b")
    windows = [layer.mixer.window for layer in reduced(arch, 4).layers]
    assert windows == [layer.mixer.window for layer in arch.layers[:4]]
    assert all(isinstance(layer.mlp, MoeMlp) for layer in arch.layers)


def test_shares_are_kept():
    arch = load_architecture("deepseek-v3")  # 3 dense of 61
    assert kinds(reduced(arch, 40)).count("D") == 2
    assert reduced(arch, 61) is arch


@pytest.mark.parametrize("layers", [0, -1, 28])
def test_numbers_outside_are_refused(layers):
    with pytest.raises(InputError, match="between 1 and the 27"):
        reduced(load_architecture("deepseek-v2-lite"), layers)
