"""emit: a plan as what starts it, file by file; and the text of them all for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from simtool.emit.dynamo import dynamo_manifest
from simtool.emit.kubernetes import kubernetes_manifest
from simtool.emit.llmd import llmd_values
from simtool.emit.manifest_check import check_manifest
from simtool.emit.option_table import OptionTable, load_table
from simtool.emit.scripts import header, launch_files
from simtool.emit.subject import Subject, subject_of
from simtool.emit.torchrun import torchrun_files
from simtool.emit.yaml_text import yaml_documents, yaml_text
from simtool.errors import InputError
from simtool.files import output_folder
from simtool.plan import Plan

if TYPE_CHECKING:
    from simtool.emit.benchmark import Traffic

Target = Literal["vllm", "sglang", "trtllm", "dynamo", "llm-d", "kubernetes", "torchrun"]
_CONTAINER_TARGETS = ("dynamo", "llm-d", "kubernetes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """How to emit. engine: what runs inside a container target. Empty text: the newest version, the usual image."""

    target: Target
    engine: str = ""
    engine_version: str = ""
    model_path: str = ""
    served_name: str = ""
    image: str = ""
    bench_client: str = ""
    bench_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Emission:
    """files: name -> text. notes: what the reader has to know besides. table: the options it was checked against."""

    files: Mapping[str, str]
    notes: tuple[str, ...]
    table: OptionTable


def emit(plan: Plan, request: Request, traffic: Traffic | None = None) -> Emission:
    """What starts the plan, and with traffic what loads it. Raises InputError for what the target cannot say."""
    table = load_table(*engine_of(request))
    loaded = request.model_path or (plan.model if request.target == "torchrun" else "")  # its weights are random
    subject = subject_of(plan, model_path=loaded, served_name=request.served_name)
    files = _launch(subject, table, request, traffic)
    if traffic is not None and request.target != "torchrun":
        files |= _benchmark(subject, table, request, traffic)
    return Emission(files=files, notes=tuple(_notes(subject, table)), table=table)


def write_emission(emission: Emission, folder: Path) -> None:
    """All files into `folder`, or none; scripts may be executed."""
    with output_folder(folder) as building:
        for name, text in emission.files.items():
            path = building / name
            path.write_text(text, encoding="utf-8")
            path.chmod(0o755 if name.endswith(".sh") else 0o644)


def emission_text(emission: Emission) -> str:
    """The files as one text that a shell runs, or as YAML. Raises InputError for a trace, which is no text to read."""
    if trace := next((name for name in emission.files if name.endswith(".jsonl")), ""):
        raise InputError(trace, "holds the requests, a file of its own", "give --out DIR")
    names = list(emission.files)
    yaml_only = next((name for name in names if name in ("manifest.yaml", "values.yaml")), "")
    if yaml_only:
        rest = [f"# {name}\n" + _commented(emission.files[name]) for name in names if name != yaml_only]
        return "".join([emission.files[yaml_only], *rest])
    scripts = [name for name in names if name.endswith(".sh")]
    parts = [_here_document(name, emission.files[name]) for name in names if name not in scripts]
    if len(scripts) == 1:
        return "\n".join([*parts, emission.files[scripts[0]]])
    return "\n".join([*parts, *(f"# --- {name}\n{emission.files[name]}" for name in scripts)])


def _launch(subject: Subject, table: OptionTable, request: Request, traffic: Traffic | None) -> dict[str, str]:
    """The launch files of a target."""
    match request.target:
        case "torchrun":
            return torchrun_files(subject, table, traffic.workload if traffic else None)
        case "kubernetes":
            documents = kubernetes_manifest(subject, table, request.image)
        case "dynamo":
            documents = dynamo_manifest(subject, table, request.image)
        case "llm-d":
            values = yaml_text(llmd_values(subject, table, request.image))
            return {"values.yaml": "\n".join(header(subject, f"llm-d with {table.title}")) + "\n" + values}
        case _:
            return launch_files(subject, table)
    for document in documents:
        check_manifest(document)
    title = f"{request.target.capitalize()} with {table.title}"
    return {"manifest.yaml": "\n".join(header(subject, title)) + "\n" + yaml_documents(documents)}


def _benchmark(subject: Subject, table: OptionTable, request: Request, traffic: Traffic) -> dict[str, str]:
    """benchmark.sh from the client asked for; SGLang's own for SGLang, vLLM's for everything else."""
    from simtool.emit.benchmark import benchmark_files

    client = request.bench_client or ("sglang" if table.engine == "sglang" and not traffic.replay else "vllm")
    same = client == table.engine
    version = request.bench_version or (table.version if same else "")
    return benchmark_files(subject, traffic, load_table(client, version), table.engine)


def engine_of(request: Request) -> tuple[str, str]:
    """(engine, version) of the table that checks the options."""
    if request.target not in get_args(Target):
        raise InputError(request.target, "is no target", f"one of {', '.join(get_args(Target))}")
    if request.target in _CONTAINER_TARGETS:
        engine = request.engine or "vllm"
        if engine not in ("vllm", "sglang", "trtllm"):
            raise InputError(engine, "is no engine that simtool writes", "vllm, sglang or trtllm")
        return engine, request.engine_version
    if request.engine and request.engine != request.target:
        raise InputError(request.engine, f"--target {request.target} is an engine itself", "leave --engine out")
    if request.image:
        raise InputError(request.image, f"--target {request.target} runs in no container", "leave --image out")
    return request.target, request.engine_version


def _notes(subject: Subject, table: OptionTable) -> list[str]:
    """What the files cannot say."""
    plan = subject.plan
    notes = []
    if plan.kernel_library != table.engine and table.engine in ("vllm", "sglang", "trtllm"):
        notes.append(f"the plan was priced with {plan.kernel_library}'s kernels, and {table.title} will run it")
    if table.engine == "torchrun":
        return notes
    if "not from a parser" in table.source:
        notes.append(f"the options of {table.title} were {table.source.partition(':')[0]}")
    if subject.own_checkpoint and plan.weight_dtype not in ("auto", "bf16", "fp16", "fp32"):
        notes.append(f"{subject.model} has to hold {plan.weight_dtype} weights, or to be one that the engine quantises")
    if table.engine != "vllm" and not all(pool.kv.num_gpu_blocks for pool in plan.pools):
        share = "weights and KV cache" if table.engine == "sglang" else "what is free once the weights are loaded"
        notes.append(f"gpu_memory_utilization is a share of {share} in {table.title}; lower it if start-up runs out")
    return notes


def _here_document(name: str, text: str) -> str:
    """A file written by the shell, so that the printed text is complete."""
    return f"cat > {name} <<'END_OF_FILE'\n{text}END_OF_FILE\n"


def _commented(text: str) -> str:
    return "".join(f"# {line}\n" if line else "#\n" for line in text.splitlines())
