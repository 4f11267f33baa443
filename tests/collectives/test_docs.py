"""The example of the documentation runs."""

import re
from pathlib import Path


def test_the_example_runs(capsys):
    text = (Path(__file__).resolve().parents[2] / "docs" / "collectives.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(example, "docs/collectives.md", "exec"), {})
    said = capsys.readouterr().out
    times = [float(number) for number in re.findall(r"([\d.]+) ms", said)]
    assert times[1] > 1.5 * times[0]
    assert "kind='sender', source=10" in said
