"""Events of a PyTorch profiler (Kineto) trace: which operator each kernel belongs to. Times are microseconds."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simtool.errors import InputError

Event = Mapping[str, Any]
MAX_BYTES = 2_000_000_000  # unpacked
LAUNCHES = ("cuda_runtime", "cuda_driver", "hip_runtime")


@dataclass(slots=True, kw_only=True)
class Call:
    """One call of an operator with the kernels that it launched (none in a trace of the CPU alone).

    line: the event's 1-based place in traceEvents. owner: the called operator that it runs inside of, or None.
    """

    line: int
    name: str
    event: Event
    owner: Call | None
    kernels: list[Event] = field(default_factory=list)

    @property
    def args(self) -> Mapping[str, Any]:
        """What the profiler noted of it."""
        found = self.event.get("args")
        return found if isinstance(found, dict) else {}


def read_trace(path: Path) -> Mapping[str, Any]:
    """The trace's JSON object. InputError: unreadable, cut short, or no such trace."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            text = file.read(MAX_BYTES + 1)
        trace = json.loads(text) if len(text) <= MAX_BYTES else None
    except (OSError, EOFError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(path, f"cannot be read: {error}", "a whole .json or .json.gz") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path} line {error.lineno}", f"is no JSON: {error.msg}", "the trace is cut") from None
    if trace is None:
        raise InputError(path, f"is larger than {MAX_BYTES} bytes", "profile fewer steps")
    if not isinstance(trace, dict) or not isinstance(trace.get("traceEvents"), list):
        raise InputError(path, "has no traceEvents", "what torch.profiler's export_chrome_trace writes")
    return trace


def calls_of(trace: Mapping[str, Any], path: Path) -> tuple[list[Call], list[tuple[int, Event]]]:
    """All operator calls with their kernels, and the kernels (with their place) that belong to none."""
    spans = [(line, event) for line, event in enumerate(trace["traceEvents"], start=1) if _is_span(event, line, path)]
    calls = list(_nested([(line, event) for line, event in spans if event.get("cat") == "cpu_op"]))
    by_id = {call.args["External id"]: call for call in calls if "External id" in call.args}
    launched = {
        event["args"]["correlation"]: event["args"].get("External id")
        for _, event in spans
        if event.get("cat") in LAUNCHES and "correlation" in event.get("args", {})
    }
    orphans = []
    for line, event in spans:
        if event.get("cat") != "kernel":
            continue
        args = event.get("args", {})
        owner = by_id.get(launched.get(args.get("correlation"))) or by_id.get(args.get("External id"))
        if owner is None:
            orphans.append((line, event))
        else:
            owner.kernels.append(event)
    return calls, orphans


def _is_span(event: object, line: int, path: Path) -> bool:
    if not isinstance(event, dict) or event.get("ph") != "X" or event.get("cat") not in ("cpu_op", "kernel", *LAUNCHES):
        return False
    if not all(isinstance(event.get(key), int | float) for key in ("ts", "dur")):
        raise InputError(f"{path} event {line}", "has no ts or dur in microseconds", "a whole trace")
    return True


def _nested(spans: Sequence[tuple[int, Event]]) -> Iterator[Call]:
    """Calls in order of time, each knowing the one around it on its thread."""
    open_calls: dict[tuple[Any, Any], list[Call]] = {}
    for line, event in sorted(spans, key=lambda item: (item[1]["ts"], -item[1]["dur"])):
        stack = open_calls.setdefault((event.get("pid"), event.get("tid")), [])
        while stack and stack[-1].event["ts"] + stack[-1].event["dur"] <= event["ts"]:
            stack.pop()
        call = Call(line=line, name=str(event.get("name")), event=event, owner=stack[-1] if stack else None)
        stack.append(call)
        yield call
