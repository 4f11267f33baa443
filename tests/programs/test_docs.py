"""The example of the documentation runs and says what it should."""

import re
from pathlib import Path


def test_the_example_runs(capsys):
    text = (Path(__file__).resolve().parents[2] / "docs" / "test_time.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(example, "docs/test_time.md", "exec"), {})
    shared, one, vote, best = (float(found) for found in re.findall(r"(\d\.\d+)", capsys.readouterr().out))
    assert 2.5 < shared < 4
    assert one < vote < best
