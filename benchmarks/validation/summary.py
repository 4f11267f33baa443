"""Every end-to-end comparison in one table, as docs/validation.md holds it.

    python -m benchmarks.validation.summary --write docs/validation.md

Without --write the table is printed. With it, the lines between the two `numbers` marks of the file are replaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.validation import apex_order, sharegpt_rtx, silicon, splitwise_a100, trtllm_offline
from benchmarks.validation.comparison import Row, arguments, data_folder, errors_of

BEGIN, END = "<!-- numbers: begin -->", "<!-- numbers: end -->"


def measured_sets(data: Path) -> Iterator[tuple[str, str, list[Row]]]:
    """(script, what was run, rows) of each comparison; a row's quantity and split name its line of the table."""
    yield "silicon", "H200, vLLM: gpt-oss-120b, Llama-3.1-70B FP8", silicon.compare(silicon.read_runs(data))
    for name in sharegpt_rtx.DEVICES:
        rows = sharegpt_rtx.compare(sharegpt_rtx.read_run(data, name), name)
        split = (
            "gap_us fitted" if name == "RTXPRO6000" else "held out"
        )  # host.toml's gap comes from stretches of that run
        ours = [replace(row, quantity=row.quantity.split()[0], split=split) for row in rows if row.split == "simtool"]
        yield "sharegpt_rtx", f"{name}, vLLM 0.19: Llama-3.1-8B, mean to p99", ours
    rows, _ = trtllm_offline.compare(trtllm_offline.read_runs(data))
    for device in dict.fromkeys(row.split for row in rows):
        own = [replace(row, split="held out") for row in rows if row.split == device]
        yield "trtllm_offline", f"{device}, TensorRT-LLM 0.17: dense models, offline", own
    rows = [replace(row, split="held out") for row in apex_order.compare(data)]
    yield "apex_order", "8 x H100, vLLM 0.6.0: Llama-3.1-70B, 3 plans", rows
    rows = splitwise_a100.compare(splitwise_a100.read_points(data))
    for tp in dict.fromkeys(row.split for row in rows):
        own = [replace(row, split="held out") for row in rows if row.split == tp]
        yield "splitwise_a100", f"A100 {tp}, engine of 2023: Llama-2-70B, one step", own


def table(data: Path) -> str:
    """Markdown: one line a (set, quantity, split)."""
    lines = [
        "| runs | quantity | rows | split | median error | p90 | worst | bias | command |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for script, what, rows in measured_sets(data):
        for quantity, split in dict.fromkeys((row.quantity, row.split) for row in rows):
            found = errors_of([row for row in rows if (row.quantity, row.split) == (quantity, split)])
            numbers = f"{found.median:.1%} | {found.p90:.1%} | {found.worst:.1%} | {found.bias:+.1%}"
            lines.append(f"| {what} | {quantity} | {found.rows} | {split} | {numbers} | `{script}` |")
    return "\n".join(lines)


def rewritten(text: str, numbers: str, begin: str = BEGIN, end: str = END) -> str:
    """`text` with everything between the marks replaced. Raises ValueError where a mark is missing."""
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{numbers}\n{end}{after}"


def main() -> None:
    """Print the table or put it into a file."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, help="file whose numbers are replaced")
    numbers, target = table(data_folder(parser)), parser.parse_args().write
    if target is None:
        print(numbers)
    else:
        target.write_text(rewritten(target.read_text(encoding="utf-8"), numbers), encoding="utf-8")


if __name__ == "__main__":
    main()
