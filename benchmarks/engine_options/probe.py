"""Build an engine's own argument parsers from its unpacked wheel and print their options as JSON.

Runs alone, in the Python that has the engine's light requirements: `record.py` starts it. Packages that are not
installed are stood in for by empty modules whose names `record.py` passes, one more after each failed import.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import json
import math
import sys
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import fields

Options = dict[str, dict[str, object]]
UNSTABLE_DEFAULTS = {"--request-id-prefix"}  # drawn anew by every process


class _Anything(type):
    """A class that has every attribute, and that as a decorator changes nothing."""

    def __getattr__(cls, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {})

    def __iter__(cls) -> Iterator[object]:
        return iter(())

    def __call__(cls, *args, **_keywords):
        return args[0] if len(args) == 1 and callable(args[0]) else cls


class _Empty(types.ModuleType):
    """A module in which every name is such a class."""

    __path__: typing.ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> object:
        if name == "__version__":
            return "0.0.0"
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {})


class _Stubs(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the packages named, and what is inside them, as empty modules."""

    def __init__(self, names: set[str]) -> None:
        self.names = names

    def find_spec(self, name, *_where):
        if any(name == stub or name.startswith(f"{stub}.") for stub in self.names):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Empty(spec.name)

    def exec_module(self, module):
        pass


def options(parser: argparse.ArgumentParser, allowed: dict[str, list[str]] | None = None) -> Options:
    """The parser's options by name. allowed: values by dest that the engine checks after its parser has run."""
    found: Options = {}
    for action in parser._actions:
        names = [name for name in action.option_strings if name.startswith("--")]
        if not names or isinstance(action, argparse._HelpAction):
            continue
        found[names[0]] = _entry(action, names[0], (allowed or {}).get(action.dest, []))
    return dict(sorted(found.items()))


def _entry(action: argparse.Action, name: str, allowed: list[str]) -> dict[str, object]:
    entry: dict[str, object] = {"type": "flag" if action.nargs == 0 else _type(action.type)}
    inverse = {"--no-", "--disable-"} if action.nargs == 0 and not name.startswith("--disable-") else {"--no-"}
    others = [other for other in action.option_strings if other != name]
    negative = [other for other in others if action.nargs == 0 and any(other.startswith(part) for part in inverse)]
    if aliases := [other for other in others if other not in negative]:
        entry["aliases"] = aliases
    if negative:
        entry["negative"] = negative
    if action.nargs not in (None, 0):
        entry["nargs"] = str(action.nargs)
    if choices := sorted({str(choice) for choice in action.choices or allowed if choice is not None}):
        entry["choices"] = choices
    stable = name not in UNSTABLE_DEFAULTS and action.default != argparse.SUPPRESS
    if stable and isinstance(action.default, str | int | float | bool):
        infinite = isinstance(action.default, float) and math.isinf(action.default)
        entry["default"] = str(action.default) if infinite else action.default  # JSON has no infinity
    return entry


def _type(kind: object) -> str:
    """The parser's type; anything that is no plain number counts as text."""
    if kind in (int, float):
        return kind.__name__
    name = getattr(kind, "__name__", "")
    return "int" if name in ("human_readable_int", "human_readable_int_or_auto", "non_negative_int") else "str"


def _literals(hint: object) -> Iterator[str]:
    """Every string that a type hint spells out."""
    if typing.get_origin(hint) is typing.Literal:
        yield from (value for value in typing.get_args(hint) if isinstance(value, str))
    else:
        for part in typing.get_args(hint):
            yield from _literals(part)


def _hint(hint: object, owner: type) -> object:
    """The hint of a field; one that names what is imported for type checkers alone says nothing here."""
    try:
        return eval(hint, vars(sys.modules[owner.__module__])) if isinstance(hint, str) else hint
    except NameError:
        return None


def probe_vllm() -> dict[str, Options]:
    """`vllm serve` and `vllm bench serve`, with the CPU platform in place of the detected one."""
    import torch  # noqa: F401 - before any stub of a package that torch looks for
    import vllm.platforms
    from vllm.platforms.cpu import CpuPlatform

    vllm.platforms._current_platform = CpuPlatform()
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    try:
        from vllm.entrypoints.common.cli_args import make_arg_parser
    except ImportError:  # before 0.26
        from vllm.entrypoints.openai.cli_args import make_arg_parser
    from vllm.benchmarks.serve import add_cli_args

    allowed = {field.name: list(_literals(_hint(field.type, EngineArgs))) for field in fields(EngineArgs)}
    allowed["quantization"] = list(QUANTIZATION_METHODS)
    bench = FlexibleArgumentParser()
    add_cli_args(bench)
    return {
        "vllm serve": options(make_arg_parser(FlexibleArgumentParser()), allowed),
        "vllm bench serve": options(bench),
    }


def probe_sglang() -> dict[str, Options]:
    """`python -m sglang.launch_server` and the serving benchmark."""
    import torch  # noqa: F401
    from sglang.srt.server_args import ServerArgs

    serve = argparse.ArgumentParser()
    ServerArgs.add_cli_args(serve)
    return {"sglang.launch_server": options(serve), "sglang.bench_serving": options(_captured(_sglang_bench))}


def _sglang_bench() -> None:
    try:
        from sglang.benchmark.serving import cli_main
    except ImportError:
        import runpy

        sys.argv = ["bench_serving", "--help"]
        runpy.run_module("sglang.bench_serving", run_name="__main__")
        return
    sys.argv = ["bench_serving", "--help"]
    cli_main()


def probe_router() -> dict[str, Options]:
    """`python -m sglang_router.launch_router`."""
    from sglang_router.router_args import RouterArgs

    parser = argparse.ArgumentParser()
    for name, kind in (("--host", str), ("--port", int)):
        parser.add_argument(name, type=kind)
    RouterArgs.add_cli_args(parser, use_router_prefix=False, exclude_host_port=True)
    return {"sglang_router.launch_router": options(parser)}


def probe_torchrun() -> dict[str, Options]:
    """`torchrun` of the torch that is installed."""
    import torch
    from torch.distributed.run import get_args_parser

    if torch.__version__.split("+")[0] != sys.argv[2]:
        raise SystemExit(f"torch {torch.__version__} is installed")
    return {"torchrun": options(get_args_parser())}


def probe_dynamo() -> dict[str, Options]:
    """`python -m dynamo.frontend`, and what its workers take beside their engine's own options."""
    from dynamo.frontend.frontend_args import FrontendArgGroup

    parser = argparse.ArgumentParser()
    FrontendArgGroup().add_arguments(parser)
    return {"dynamo.frontend": options(parser)}


def _captured(build: Callable[[], None]) -> argparse.ArgumentParser:
    """The parser that `build` makes and uses."""

    class Found(Exception):
        parser: argparse.ArgumentParser

    def parse(self, *_args, **_keywords):
        found = Found()
        found.parser = self
        raise found

    original = argparse.ArgumentParser.parse_args
    argparse.ArgumentParser.parse_args = parse
    try:
        build()
    except Found as found:
        return found.parser
    finally:
        argparse.ArgumentParser.parse_args = original
    raise SystemExit("no parser was used")


PROBES = {
    "vllm": probe_vllm,
    "sglang": probe_sglang,
    "sglang-router": probe_router,
    "dynamo": probe_dynamo,
    "torchrun": probe_torchrun,
}


def main() -> None:
    engine, folder, stubs, out = sys.argv[1:5]
    sys.path.insert(0, folder)
    sys.meta_path.append(_Stubs(set(stubs.split(",")) - {""}))
    programs = PROBES[engine]()
    with open(out, "w", encoding="utf-8") as file:
        json.dump(programs, file)


if __name__ == "__main__":
    main()
