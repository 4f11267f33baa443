"""What the documents say exists, exists."""

import re
from pathlib import Path

import pytest

from simtool.cli_options import ENGINE, QUESTION, WORKLOAD
from simtool.scenario import EngineSection, Scenario, SloSection, WorkloadSection

ROOT = Path(__file__).resolve().parents[2]
COMMAND_FLAGS = {
    *(
        "--json",
        "--dtypes",
        "--out",
        "--scenario",
        "--set",
        "--help",
        "--pareto",
        "--capacity",
        "--batch",
        "--pool",
        "--exact-steps",
        "--overlap",
        "--solve",
        "--seconds",
        "--schedule",
    ),
    *("--model", "--over", "--format", "--version", "--target"),
    *("--budget", "--device", "--families", "--models", "--library"),
    *("--gpus", "--nodes", "--groups", "--where", "--present", "--expert-bytes", "--load-slack", "--effort"),
    *("--all-layers", "--page", "--experts-ms", "--windows", "--window-steps", "--link", "--inter-link"),
    *("--routing", "--policy", "--slots", "--context", "--steps"),
    *("--measured", "--again", "--calibrate", "--plans", "--noise", "--gate", "--on", "--layers"),
    *("--tokens", "--ep", "--prompt-tokens", "--record-routing", "--data"),
    *("--hbm-gb", "--host-memory-gb", "--max-step-ms", "--target-tok-s"),
}
OTHER_TOOLS = {
    "--enable-dbo",
    "--enable-two-batch-overlap",
    "--save-result",
    "--save-detailed",
    "--output-details",
    "--report",
    "--init-expert-location",
    "--ep-num-redundant-experts",
    "--enable-eplb",
    "--eplb-config",
    "--cpu-offload-gb",
    "--cpu-offload-params",
    "--kt-num-gpu-experts",
}
VLLM_ONLY = {"--random-input-len", "--random-output-len", "--check"}


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "docs/tutorial.md",
        "docs/how-to.md",
        "docs/calibration.md",
        "docs/validate.md",
        "docs/overlap.md",
        "docs/schedule.md",
        "docs/collectives.md",
        "docs/experts.md",
        "docs/routing.md",
        "docs/offload.md",
        "examples/README.md",
    ],
)
def test_every_flag_in_the_documents_exists(name):
    known = {
        part
        for group in (QUESTION, WORKLOAD, ENGINE)
        for flag in group
        for part in re.split(r"[ /]", " ".join(flag.names))
    }
    text = (ROOT / name).read_text(encoding="utf-8")
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text))
    assert used - known - COMMAND_FLAGS - VLLM_ONLY - OTHER_TOOLS == set()


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "docs/tutorial.md",
        "docs/how-to.md",
        "docs/design.md",
        "docs/validate.md",
        "docs/overlap.md",
        "docs/schedule.md",
        "docs/collectives.md",
        "docs/experts.md",
        "docs/routing.md",
        "docs/offload.md",
        "CONTRIBUTING.md",
    ],
)
def test_every_linked_file_exists(name):
    folder = (ROOT / name).parent
    links = re.findall(r"\]\((?!http)([^)#]+)", (ROOT / name).read_text(encoding="utf-8"))
    missing = [link for link in links if not (folder / link).exists()]
    assert [link for link in missing if not link.endswith("validation.md")] == []


def test_the_how_to_lists_every_scenario_key():
    text = (ROOT / "docs" / "how-to.md").read_text(encoding="utf-8")
    for section in (WorkloadSection, SloSection, EngineSection):
        lost = [key for key in section.model_fields if key not in text]
        assert lost == []
    assert set(Scenario.model_fields) >= {"model", "devices", "objective"}


def test_flags_set_keys_that_exist():
    sections = {"workload": WorkloadSection, "slo": SloSection, "engine": EngineSection}
    for flag in (*QUESTION, *WORKLOAD, *ENGINE):
        section, dot, key = flag.path.partition(".")
        fields = sections[section].model_fields if dot else {**Scenario.model_fields, "slo": None, "prices": None}
        assert (key or section) in fields, flag


@pytest.mark.parametrize("name", ["docs/overlap.md", "docs/schedule.md", "docs/experts.md", "docs/routing.md"])
def test_examples_in_documents_run(capsys, name):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(example, name, "exec"), {})
    assert re.search(r"\d\.\d", capsys.readouterr().out)
