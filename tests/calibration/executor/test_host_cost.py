"""What a step of the executor costs the host is measured on the served models' layers."""

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from simtool.calibration.executor.host_cost import engine_times, tiny  # noqa: E402
from simtool.models.config import load_architecture  # noqa: E402


@pytest.mark.parametrize("model", ["llama-3.1-8b", "qwen3-30b-a3b", "deepseek-v2-lite"])
def test_a_tiny_model_has_the_layers_of_the_served_one(model):
    arch = load_architecture(model)
    small = tiny(arch)
    assert [type(layer.mixer) for layer in small.layers] == [type(layer.mixer) for layer in arch.layers]
    assert [type(layer.mlp) for layer in small.layers] == [type(layer.mlp) for layer in arch.layers]
    assert small.hidden_size < arch.hidden_size


def test_more_layers_take_the_host_longer():
    few, many = (
        {time.name: time.seconds for time in engine_times("cpu", [load_architecture(model)])}
        for model in ("examples/small-moe/config.json", "llama-3.1-8b")
    )
    assert 0 < few["step_base"] < many["step_base"]
    assert few.keys() == {"step_base", "step_per_request"}


def test_models_that_do_not_run_say_nothing():
    assert engine_times("cpu", [load_architecture("gemma-2-9b")]) == []


def test_a_run_that_fails_ends_its_runner(monkeypatch):
    from simtool.calibration.executor import host_cost

    class Failing:
        closed = False

        def submit(self, lane, batches):
            raise RuntimeError("no")

        def close(self):
            self.closed = True

    runner = Failing()
    monkeypatch.setattr(host_cost, "start_runner", lambda *_: runner)
    with pytest.raises(RuntimeError, match="no"):
        engine_times("cpu", [load_architecture("llama-3.1-8b")])
    assert runner.closed
