"""Plan files: a Plan as JSON and back, exactly; an unknown key is an error."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from simtool.errors import InputError
from simtool.files import read_text
from simtool.offloads import check_offload
from simtool.plan import Overlap, Plan

_MAX_BYTES = 4 * 2**20
_SCHEMA = 1
_MOST = 2**20  # of devices, of sequences or tokens in a step, of tokens in a KV block

_MOST_BATCHES = 8  # nano-batches of a step
_MOST_CHUNKS = 1024  # of a collective


class _PlanFile(BaseModel):
    """Checks a Plan. pydantic hands this configuration down to the dataclasses inside it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    plan: Plan


def plan_json(plan: Plan) -> str:
    """The plan as JSON text; `parse_plan` gives back an equal Plan."""
    return json.dumps(plan_dict(plan), indent=2) + "\n"


def plan_dict(plan: Plan) -> dict[str, Any]:
    """The plan as JSON-ready values."""
    return asdict(plan)


def parse_plan(text: str, source: str = "plan") -> Plan:
    """The plan in `text`. Raises InputError that names every offending key and value."""
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        rule = f"is not valid JSON: {error.msg} at line {error.lineno} column {error.colno}"
        raise InputError(source, rule, "was the file cut off? write it again with `simtool plan --out DIR`") from error
    except (ValueError, RecursionError) as error:
        raise InputError(source, f"is not valid JSON: {error}", "a plan file comes from `simtool plan`") from error
    try:
        plan = _PlanFile.model_validate_json(json.dumps({"plan": values})).plan
    except ValidationError as error:
        raise InputError(source, validation_rule(error, skip=1), "a plan file comes from `simtool plan`") from error
    _check(plan, source)
    return plan


def load_plan(path: Path) -> Plan:
    """The plan in the file at `path`. Raises InputError."""
    return parse_plan(read_text(path, kind="plan file", max_bytes=_MAX_BYTES), str(path))


def validation_rule(error: ValidationError, *, skip: int = 0) -> str:
    """pydantic's findings as one line; the first `skip` parts of each path are left out."""
    findings = []
    for found in error.errors(include_url=False):
        where = ".".join(str(part) for part in found["loc"][skip:]) or "file"
        if found["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            findings.append(f"{where}: unknown key")
        else:
            findings.append(f"{where}: {_said(found['msg'])} (got {_shorten(found['input'])})")
    return "; ".join(findings)


def _said(message: str) -> str:
    """pydantic's words, without its heading over those of a rule of our own."""
    message = message.removeprefix("Value error, ")
    return message[0].lower() + message[1:]


def _shorten(value: object) -> str:
    """The value as an error message shows it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _check(plan: Plan, source: str) -> None:
    """Rules that types do not state."""
    if plan.schema != _SCHEMA:
        raise InputError(source, f"schema is {plan.schema}, and this simtool reads {_SCHEMA}", "plan again")
    if not plan.pools:
        raise InputError(source, "pools is empty", "a plan has at least one pool of replicas")
    for number, pool in enumerate(plan.pools):
        degrees = {"tp": pool.parallel.tp, "pp": pool.parallel.pp, "dp": pool.parallel.dp, "ep": pool.parallel.ep}
        sizes = {"max_num_seqs": pool.scheduler.max_num_seqs, "block_size": pool.kv.block_size}
        sizes["max_num_batched_tokens"] = pool.scheduler.max_num_batched_tokens
        for name, value in {"replicas": pool.replicas, **degrees, **sizes}.items():
            if not 1 <= value <= _MOST:
                raise InputError(
                    source, f"pools.{number}: {name} is {_shorten(value)}", f"it lies between 1 and {_MOST:,}"
                )
        limits = {"num_gpu_blocks": pool.kv.num_gpu_blocks, "max_model_len": pool.scheduler.max_model_len}
        for name, value in limits.items():
            if not 0 <= value < 2**31:
                raise InputError(
                    source, f"pools.{number}: {name} is {_shorten(value)}", f"it lies between 0 and {2**31 - 1:,}"
                )
        if not 0.0 < pool.kv.gpu_memory_utilization <= 1.0:
            rule = f"pools.{number}: gpu_memory_utilization is {pool.kv.gpu_memory_utilization}"
            raise InputError(source, rule, "it lies in (0, 1]")
        _check_overlap(pool.overlap, f"{source}: pools.{number}.overlap")
        check_offload(pool.offload, f"{source}: pools.{number}.offload")
        if not 0.0 <= pool.kv.watermark < 1.0:
            raise InputError(source, f"pools.{number}: watermark is {pool.kv.watermark}", "it lies in [0, 1)")


def _check_overlap(overlap: Overlap, source: str) -> None:
    shares = overlap.nano_batches
    if len(shares) > _MOST_BATCHES or any(not 0.0 < share <= 1.0 for share in shares):
        raise InputError(source, f"nano_batches is {_shorten(shares)}", f"at most {_MOST_BATCHES} shares in (0, 1]")
    if shares and abs(sum(shares) - 1.0) > 1e-9:
        raise InputError(source, f"nano_batches add up to {sum(shares)}", "shares of a batch add up to 1")
    counts = {"comm_sms": overlap.comm_sms, "min_tokens": overlap.min_tokens}
    counts["min_prefill_tokens"] = overlap.min_prefill_tokens
    for name, value in {**counts, "full_comm_sms": overlap.full_comm_sms}.items():
        if not 0 <= value <= _MOST:
            raise InputError(source, f"{name} is {_shorten(value)}", f"it lies between 0 and {_MOST:,}")
    for fusion in overlap.fusions:
        if not 1 <= fusion.chunks <= _MOST_CHUNKS:
            raise InputError(source, f"chunks is {_shorten(fusion.chunks)}", f"it lies between 1 and {_MOST_CHUNKS}")
        for name, share in (("local_first", fusion.local_first), ("local_last", fusion.local_last)):
            if not 0.0 <= share < 1.0:
                raise InputError(source, f"{name} is {share}", "it lies in [0, 1)")
        if len(fusion.waves) > _MOST_CHUNKS or any(not 1 <= waves <= _MOST for waves in fusion.waves):
            raise InputError(source, f"waves is {_shorten(fusion.waves)}", "each chunk has at least one wave")
