"""The examples of the documentation run and show what the text says."""

import re
from pathlib import Path


def test_the_examples_run(capsys):
    text = (Path(__file__).resolve().parents[2] / "docs" / "offload.md").read_text(encoding="utf-8")
    scope: dict[str, object] = {}
    for example in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(example, "docs/offload.md", "exec"), scope)
    said = capsys.readouterr().out
    speeds = {name: float(number) for name, number in re.findall(r"^(\S+) +([\d.]+) tok/s", said, re.MULTILINE)}
    assert speeds["on-demand"] < speeds["lru"] < speeds["belady"]
    assert speeds["speculative"] > speeds["lru"]
    assert "Decisions(hits=(4,), loads=(6,), cpu=())" in said
    assert said.splitlines()[-1] == "2 4"
