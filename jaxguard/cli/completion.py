"""The verb that prints a shell's completion of all verbs and flags."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_type_hints

import tyro
from tyro.conf import Positional

from jaxguard.cli.arguments import Arguments
from jaxguard.cli.audit import AuditOptions, CleanOptions
from jaxguard.cli.bench import (
    BenchCompileOptions,
    BenchDataOptions,
    BenchObjectiveOptions,
    BenchOptions,
    CostOptions,
    RehearseOptions,
)
from jaxguard.cli.data import BuildOptions, CheckOptions, GalleryOptions, ListOptions, NoOptions, PoisonOptions
from jaxguard.cli.experiments import DemoOptions, TableOptions
from jaxguard.cli.scoring import CompareOptions, ScoreOptions, ShowOptions
from jaxguard.cli.training import EvaluateOptions, ExportOptions, GenerateOptions
from jaxguard.config import Config

OWN: dict[str, type] = {
    "data list": ListOptions,
    "data build": BuildOptions,
    "data check": CheckOptions,
    "gallery": GalleryOptions,
    "clean": CleanOptions,
    "score": ScoreOptions,
    "compare": CompareOptions,
    "show": ShowOptions,
    "table": TableOptions,
    "demo": DemoOptions,
    "bench objective": BenchObjectiveOptions,
    "cost": CostOptions,
}
"""Verbs that take no configuration, and their options."""
WITH_FILE: dict[str, type] = {
    "config": NoOptions,
    "poison": PoisonOptions,
    "audit": AuditOptions,
    "preflight": NoOptions,
    "train": NoOptions,
    "evaluate": EvaluateOptions,
    "generate": GenerateOptions,
    "export": ExportOptions,
    "bench step": BenchOptions,
    "bench data": BenchDataOptions,
    "bench torch": BenchOptions,
    "bench compile": BenchCompileOptions,
    "rehearse": RehearseOptions,
}
"""Verbs that take FILE and overrides, and their own options."""


@dataclass(frozen=True)
class CompletionOptions:
    shell: Positional[Literal["bash", "zsh", "tcsh"]]
    """Shell to complete in."""


def completion(arguments: Arguments) -> None:
    """Print a completion script for a shell: source <(jaxguard completion bash)."""
    options = arguments.parse(CompletionOptions)
    print(script(options.shell), end="")


def script(shell: str) -> str:
    """Make the completion script of all verbs."""
    kinds = OWN | {name: _with_file(kind) for name, kind in WITH_FILE.items()} | {"completion": CompletionOptions}
    groups: dict[str, dict[str, Any]] = {}
    for name, kind in kinds.items():
        first, _, second = name.partition(" ")
        groups.setdefault(first, {})[second] = kind
    verbs = {
        first: members[""] if "" in members else dataclasses.make_dataclass(first, [("verb", _union(members))])
        for first, members in groups.items()
    }
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        tyro.cli(_union(verbs), prog="jaxguard", args=["--tyro-print-completion", shell], use_underscores=True)
    return printed.getvalue()


def _with_file(kind: type) -> type:
    """Make the options of a verb that also takes a configuration; its own options hide those of the same name."""
    fields = {field.name: field for own in (Config, kind) for field in dataclasses.fields(own)}
    hints = get_type_hints(Config, include_extras=True) | get_type_hints(kind, include_extras=True)
    chosen: Any = [(name, hints[name], dataclasses.field(default=_default(field))) for name, field in fields.items()]
    return dataclasses.make_dataclass("Options", [("file", Positional[str]), *chosen], kw_only=True)


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _union(kinds: Mapping[str, Any]) -> Any:
    """Make tyro's subcommands of named dataclasses."""
    members = [Annotated[kind, tyro.conf.subcommand(name, prefix_name=False)] for name, kind in kinds.items()]
    return Union[tuple(members)]  # noqa: UP007
