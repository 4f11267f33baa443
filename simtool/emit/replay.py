"""The very requests as a timed trace, which newer `vllm bench serve` sends at their own times."""

from __future__ import annotations

import json
from collections.abc import Iterator

from simtool.emit.command import Options
from simtool.emit.option_table import OptionTable
from simtool.errors import InputError
from simtool.workload import Workload


def replay_options(workload: Workload, client: OptionTable, program: str, reason: str, path: str) -> Options:
    """The options that send trace.jsonl. Raises InputError where the version cannot."""
    if not client.has(program, "--dataset-name", "timed_trace"):
        rule = f"{client.title} cannot send it: {reason}, and this version replays no recorded times"
        raise InputError("workload", rule, "--bench-version 0.24.0 or newer has timed traces")
    return [
        ("--dataset-name", ("timed_trace",)),
        ("--dataset-path", (f"$here/{path}",)),
        ("--timed-trace-chunk-hash-size", (str(block_tokens(workload)),)),
        ("--self-timed", ()),
    ]


def block_tokens(workload: Workload) -> int:
    """Tokens that one id of the trace stands for: a whole prompt where none shares a prefix."""
    return workload.prefix_block_tokens if len(workload.prefix_ids) else int(workload.input_tokens.max())


def replay_lines(workload: Workload) -> Iterator[str]:
    """One JSON line a request: seconds, lengths, and ids of the prompt's blocks; blocks of its own get new ids."""
    block, offsets = block_tokens(workload), workload.prefix_offsets
    fresh = int(workload.prefix_ids.max()) + 1 if len(workload.prefix_ids) else 0
    for row in range(workload.num_requests):
        shared = workload.prefix_ids[offsets[row] : offsets[row + 1]].tolist() if len(offsets) else []
        own = -(-int(workload.input_tokens[row]) // block) - len(shared)
        request = {
            "timestamp": round(float(workload.arrival_s[row]), 6),
            "input_length": int(workload.input_tokens[row]),
            "output_length": int(workload.output_tokens[row]),
            "hash_ids": [*shared, *range(fresh, fresh + own)],
        }
        fresh += own
        yield json.dumps(request) + "\n"
