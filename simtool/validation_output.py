"""What `simtool validate` leaves behind: one JSON object, and the files of its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simtool.json_text import json_text, plain
from simtool.plan_file import plan_dict
from simtool.report.validation_page import order_page, validation_page
from simtool.report.validation_sentence import verdict
from simtool.validation import PlanOrder, Validation

_COLUMNS = ("replica", "start_s", "measured_s", "priced_s", "lower_s", "upper_s", "host_s", "priced_host_s",
            "prefill_tokens", "decode_requests", "kv_blocks", "requests", "again_s")  # fmt: skip


def validation_object(validation: Validation) -> dict[str, Any]:
    """The one object of `simtool validate --json`."""
    metrics = {
        row.key: {
            "predicted": row.predicted,
            "interval": [row.lower, row.upper],
            "measured": row.measured,
            "error": row.error,
            "noise": row.noise,
            "inside": row.inside,
            "few": row.few,
        }
        for row in validation.metrics
    }
    fit = validation.host_fit
    return {
        "verdict": verdict(validation),
        "tool": validation.tool,
        "source": validation.source,
        "plan": plan_dict(validation.plan),
        "metrics": plain(metrics),
        "schedule_identical": None if validation.steps is None and not validation.divergence
        else not validation.divergence,
        "divergence": validation.divergence,
        "steps": plain([group for group in (validation.overall, *validation.groups) if group is not None]),
        "attribution": plain(validation.attribution),
        "host_fit": None if fit is None else {**plain(fit), "helps": fit.helps},
        "gates": [{**plain(gate), "passed": gate.passed} for gate in validation.gates],
        "notes": list(validation.notes),
        "environment": plain(validation.environment),
    }  # fmt: skip


def order_object(order: PlanOrder, found: Sequence[Validation]) -> dict[str, Any]:
    """The one object of `simtool validate --plans --json`."""
    return {"order": plain(order), "plans": {n: validation_object(v) for n, v in zip(order.names, found, strict=True)}}


def write_order(order: PlanOrder, found: Sequence[Validation], folder: Path) -> None:
    """validation.json and validation.html of several plans."""
    (folder / "validation.json").write_text(json_text(order_object(order, found)), encoding="utf-8")
    (folder / "validation.html").write_text(order_page(order, found), encoding="utf-8")


def write_validation(validation: Validation, folder: Path) -> None:
    """validation.json, with every step, and validation.html."""
    saved = validation_object(validation)
    if validation.steps is not None:
        steps = validation.steps
        columns: dict[str, Any] = {name: getattr(steps, name) for name in _COLUMNS}
        for family, (measured_s, priced_s) in steps.families.items():
            columns |= {f"{family}_measured_s": measured_s, f"{family}_priced_s": priced_s}
        saved["columns"] = columns
    (folder / "validation.json").write_text(json_text(saved, indent=None), encoding="utf-8")
    (folder / "validation.html").write_text(validation_page(validation), encoding="utf-8")
