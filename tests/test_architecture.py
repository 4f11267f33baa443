"""Imports point one way, heavy libraries stay in their rooms, and `simtool --help` loads none of them."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "simtool"
# A module may import its own layer and the layers before it.
LAYERS = (
    {"errors", "units", "json_text", "stopping"},
    {
        "files",
        "workload",
        "plan",
        "offload_use",
        "offloads",
        "overlaps",
        "metrics",
        "slo_text",
        "step_schedule",
        "vllm_text",
        "measured",
        "npz_file",
        "summaries",
        "models",
        "traces",
        "validation",
    },
    {"hardware"},
    {"simulator"},
    {"planners"},
    {
        "plan_file",
        "scenario",
        "explaining",
        "overlapping",
        "offloading",
        "offload_planning",
        "run",
        "sweep",
        "adjusting",
        "asking",
        "choosing",
        "timeline",
        "step_trace",
        "azure_file",
        "expert_loads",
        "expert_location",
    },
    {"report", "emit"},
    {"outputs", "terminal", "validation_output"},
    {
        "cli",
        "cli_calibrate",
        "cli_compile",
        "cli_emit",
        "cli_options",
        "cli_plan",
        "cli_rebalance",
        "cli_routing",
        "cli_front",
        "cli_simulate",
        "cli_sweep",
        "cli_explain",
        "cli_offload",
        "cli_overlap",
        "cli_trace",
        "cli_catalogue",
        "cli_execute",
        "cli_experts",
        "cli_measured",
        "cli_validate",
    },
)
HOMES = {
    "simpy": {"simulator"},
    "ortools": {"planners"},
    "plotly": {"report"},
    "torch": {"calibration"},
    "typer": {
        "cli",
        "cli_calibrate",
        "cli_emit",
        "cli_options",
        "cli_plan",
        "cli_rebalance",
        "cli_routing",
        "cli_simulate",
        "cli_sweep",
        "cli_explain",
        "cli_offload",
        "cli_overlap",
        "cli_trace",
        "cli_catalogue",
        "cli_execute",
        "cli_experts",
        "cli_validate",
    },
}
HEAVY = ("torch", "ortools", "scipy", "plotly", "numba", "simpy", "numpy", "pandas")
HELPED = (
    "",
    "plan",
    "simulate",
    "emit",
    "execute",
    "validate",
    "trace synth",
    "experts place",
    "experts rebalance",
    "offload walk",
    "offload plan",
    "routing inspect",
    "calibrate",
    "calibrate import",
)
FILES = sorted(path for path in ROOT.rglob("*.py"))


def room(path: Path) -> str:
    part = path.relative_to(ROOT).parts[0]
    return part.removesuffix(".py")


@cache
def imported(path: Path) -> set[str]:
    """Full names of all modules that the file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            if node.module == "simtool":
                names |= {f"simtool.{alias.name}" for alias in node.names}
    return names


def rank(name: str) -> int:
    return next(place for place, layer in enumerate(LAYERS) if name in layer)


def test_every_room_has_a_layer():
    known = set().union(*LAYERS) | {"__init__", "calibration"}
    assert {room(path) for path in FILES} - known == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    own = room(path)
    if own == "__init__":
        return
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "simtool" or len(parts) < 2:
            continue
        if own == "calibration":
            assert parts[1] not in ("planners", "report", "cli"), f"{path} imports {name}"
        else:
            assert parts[1] != "calibration" or own in (
                "cli_calibrate",
                "cli_emit",
                "cli_execute",
                "cli_measured",
                "cli_validate",
            ), f"{path} imports {name}"
            assert parts[1] == "calibration" or rank(parts[1]) <= rank(own), f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_libraries_stay_in_their_rooms(path):
    for name in imported(path):
        library = name.split(".")[0]
        if library in HOMES:
            assert room(path) in HOMES[library], f"{path} imports {name}"
        assert library not in ("pandas", "sklearn"), f"{path} imports {name}"


def test_emit_never_knows_time():
    names = {name for path in FILES if room(path) == "emit" for name in imported(path) if name.startswith("simtool.")}
    rooms = {name.split(".")[1] for name in names}
    assert rooms.isdisjoint({"simulator", "planners", "calibration", "report", "run", "metrics"})
    hardware = {name for name in names if ".hardware" in name}
    allowed = {"simtool.hardware.own_cluster", "simtool.hardware.server"}
    assert hardware == allowed, "it needs to know what stands in a node, not its speed"


def loaded_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sorted(m.split('.')[0] for m in sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_help_loads_nothing_heavy():
    """One process for all commands: what is asserted after the last of them has held after each."""
    commands = [[*command.split(), "--help"] for command in HELPED]
    loaded = loaded_after(
        f"from simtool.cli import run\nassert [run(words) for words in {commands}] == [0] * {len(commands)}"
    )
    assert loaded.isdisjoint(HEAVY), loaded & set(HEAVY)


def test_import_simtool_loads_nothing_heavy():
    assert loaded_after("import simtool").isdisjoint(HEAVY)


def test_public_names_resolve():
    import simtool

    assert [name for name in simtool.__all__ if not hasattr(simtool, name)] == []
    assert callable(simtool.plan)
    assert sorted(simtool.__all__) == dir(simtool)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = simtool.nonsense
