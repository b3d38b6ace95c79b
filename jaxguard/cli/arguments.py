"""What follows a verb on the command line, with every mistake as one line."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import tyro

from jaxguard.config import Config, keys, suggestion
from jaxguard.config.files import load
from jaxguard.errors import UserError
from jaxguard.experiments.configurations import validate

T = TypeVar("T")
HELP = ("-h", "--help")


@dataclass(frozen=True)
class Arguments:
    """The tokens behind a verb, and what the verb's help says."""

    verb: str
    description: str
    tokens: Sequence[str]

    def parse(self, kind: type[T], default: T | None = None) -> T:
        """All tokens as the fields of a dataclass.

        Args:
            kind: a dataclass.
            default: an instance whose values the flags override.

        Raises:
            UserError: an unknown flag, a value that does not fit, or a missing one.
            SystemExit: help was asked for and printed.
        """
        parsed, rest = self.split(kind, default)
        if rest.tokens:
            flag, first = rest.tokens[0].partition("=")[0], rest.tokens[0]
            if not flag.startswith("-"):
                raise UserError(f"{self.verb}: unexpected argument {first!r}")
            raise UserError(f"{self.verb}: unknown flag {flag}{suggestion(flag, _flags(kind))}")
        return parsed

    def split(self, kind: type[T], default: T | None = None) -> tuple[T, Arguments]:
        """As `parse`, but the tokens that `kind` does not know are returned, for another to parse."""
        complaint = io.StringIO()
        try:
            with contextlib.redirect_stderr(complaint):
                parsed, unknown = tyro.cli(
                    kind,
                    args=self.tokens,
                    default=tyro.MISSING_NONPROP if default is None else default,
                    prog=f"jaxguard {self.verb}",
                    description=self.description,
                    use_underscores=True,
                    return_unknown_args=True,
                    config=(tyro.conf.PositionalMetavarFromFieldName,),
                )
        except SystemExit as stop:
            if not stop.code:
                raise
            raise UserError(f"{self.verb}: {_unboxed(complaint.getvalue())}") from None
        return parsed, dataclasses.replace(self, tokens=unknown)

    def configuration(self, load: Callable[[Path], Config] = load) -> Config:
        """FILE [overrides]: a configuration, overridden and validated."""
        first, *rest = self.tokens or ("",)
        if first in HELP:
            default, rest = Config(), [first]
        elif not first or first.startswith("-"):
            raise UserError(
                f"{self.verb}: give the configuration first: jaxguard {self.verb} FILE [--train.steps 500 ...]"
            )
        else:
            default = load(Path(first))
        overrides = Arguments(f"{self.verb} {'FILE' if first in HELP else first}", self.description, rest)
        config = overrides.parse(Config, default)
        validate(config)
        return config


def _flags(kind: type) -> list[str]:
    return [f"--{key}" for key in keys(kind)]


def _unboxed(text: str) -> str:
    """The first paragraph of the box that tyro draws around an error, as one line.

    Where it goes decides whether the box is drawn in Unicode or ASCII, and whether in colour.
    """
    plain = re.sub(r"\x1b\[[\d;]*m|[│╭╮╰╯]", "", text)
    rule = re.compile("[─-]*")
    below_title = itertools.dropwhile(rule.fullmatch, (line.strip() for line in plain.splitlines()[1:]))
    paragraph = " ".join(itertools.takewhile(lambda line: not rule.fullmatch(line), below_title))
    return paragraph.removeprefix("Error parsing ") or "these arguments do not fit; see --help"
