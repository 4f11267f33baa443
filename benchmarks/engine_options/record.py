"""Record the options of an engine's version from its wheel, for `simtool/emit/data/`. No GPU is needed.

    python -m venv rec && rec/bin/pip install torch pydantic transformers ...   # the engine's light requirements
    pip download --no-deps vllm==0.33.0
    python -m benchmarks.engine_options.record --engine vllm --wheel vllm-0.33.0-*.whl --python rec/bin/python

The engine's own parsers are built in that Python (`probe.py`). Where an import fails because a package is not there,
the package is replaced by an empty module and the probe starts again; the table's `source` says which were.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PROBE = Path(__file__).with_name("probe.py")
DATA = Path(__file__).resolve().parents[2] / "simtool" / "emit" / "data"
MISSING = re.compile(r"No module named '([\w.]+)'")
MAX_TRIES = 40


def record(engine: str, wheel: Path, python: str, stubs: list[str]) -> dict[str, object]:
    """The table of one wheel."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "wheel"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder, [file for file in archive.namelist() if not file.endswith(".so")])
        programs = _probed(engine, str(folder), python, stubs, Path(name) / "options.json")
    distribution, version = wheel.name.split("-")[:2]
    source = f"the parsers of {distribution} {version}'s wheel, built by benchmarks/engine_options"
    if stubs:
        source += f"; not installed, so replaced by empty modules: {', '.join(stubs)}"
    return {"engine": engine, "version": version, "source": source, "programs": programs}


def record_installed(engine: str, version: str, python: str) -> dict[str, object]:
    """The table of what is installed in `python`, which has to be `version`: torch's own parser needs torch whole."""
    with tempfile.TemporaryDirectory() as name:
        programs = _probed(engine, version, python, [], Path(name) / "options.json")
    source = f"the parser of an installed torch {version}, built by benchmarks/engine_options"
    return {"engine": engine, "version": version, "source": source, "programs": programs}


def _probed(engine: str, folder: str, python: str, stubs: list[str], out: Path) -> dict[str, object]:
    """What the probe finds; `stubs` grows by each package that is missing."""
    for _ in range(MAX_TRIES):
        command = [python, str(PROBE), engine, folder, ",".join(stubs), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return json.loads(out.read_text(encoding="utf-8"))
        missing = MISSING.search(done.stderr.strip().splitlines()[-1])
        if not missing or missing[1] in stubs:
            sys.exit(f"{done.stderr}\nthe parsers of {engine} could not be built")
        own = missing[1].split(".")[0]
        stubs.append(missing[1] if (Path(folder) / own).exists() else own)
    sys.exit(f"{engine} still lacks packages after {MAX_TRIES} tries: {', '.join(stubs)}")


def table_text(table: dict[str, object]) -> str:
    """The table as JSON with an option a line, so that two versions can be compared with diff."""
    programs = table["programs"]
    lines = [f'  "{key}": {json.dumps(table[key])},' for key in ("engine", "version", "source")]
    blocks = []
    for name, options in programs.items():
        rows = ",\n".join(f'      "{option}": {json.dumps(entry)}' for option, entry in options.items())
        blocks.append(f'    "{name}": {{\n{rows}\n    }}')
    return "{\n" + "\n".join(lines) + '\n  "programs": {\n' + ",\n".join(blocks) + "\n  }\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", required=True, choices=("vllm", "sglang", "sglang-router", "dynamo", "torchrun"))
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--wheel", type=Path)
    what.add_argument("--installed", metavar="VERSION", help="torchrun: the torch that is installed")
    parser.add_argument("--python", default=sys.executable, help="a Python with the engine's light requirements")
    parser.add_argument("--stub", action="append", default=[], help="a package to replace from the start")
    parser.add_argument("--out", type=Path, default=DATA)
    asked = parser.parse_args()
    if asked.wheel:
        table = record(asked.engine, asked.wheel, asked.python, asked.stub)
    else:
        table = record_installed(asked.engine, asked.installed, asked.python)
    path = asked.out / f"{asked.engine}-{table['version']}.json"
    path.write_text(table_text(table), encoding="utf-8")
    print(path, {name: len(options) for name, options in table["programs"].items()})


if __name__ == "__main__":
    main()
