"""Parsing of the words after a verb; every mistake is reported in one line."""

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

from jaxguard.cli.overrides import settle
from jaxguard.config import Config, keys, suggestion
from jaxguard.config.files import load
from jaxguard.data.epochs import in_steps
from jaxguard.errors import UserError
from jaxguard.experiments.configurations import validate

T = TypeVar("T")
HELP = ("-h", "--help")


@dataclass(frozen=True)
class Arguments:
    """The tokens after a verb, and the description in the verb's help."""

    verb: str
    description: str
    tokens: Sequence[str]

    def parse(self, kind: type[T], default: T | None = None) -> T:
        """Parse all tokens into a dataclass.

        Args:
            kind: Dataclass of the options.
            default: Instance whose values the flags override.

        Raises:
            UserError: An unknown flag, a value of the wrong type, or a missing one.
            SystemExit: Help was requested and printed.
        """
        parsed, rest = self._split(kind, default, f"jaxguard {self.verb}")
        if rest.tokens:
            flag, first = rest.tokens[0].partition("=")[0], rest.tokens[0]
            if not flag.startswith("-"):
                raise UserError(f"{self.verb}: unexpected argument {first!r}")
            raise UserError(f"{self.verb}: unknown flag {flag}{suggestion(flag, _flags(kind))}")
        return parsed

    def split(self, kind: type[T], default: T | None = None) -> tuple[T, Arguments]:
        """As `parse`, for a verb that also takes a configuration; returns the tokens that `kind` does not know."""
        return self._split(kind, default, f"jaxguard {self.verb} FILE [OVERRIDES]")

    def _split(self, kind: type[T], default: T | None, prog: str) -> tuple[T, Arguments]:
        complaint = io.StringIO()
        try:
            with contextlib.redirect_stderr(complaint):
                parsed, unknown = tyro.cli(
                    kind,
                    args=self.tokens,
                    default=tyro.MISSING_NONPROP if default is None else default,
                    prog=prog,
                    description=self.description,
                    use_underscores=True,
                    return_unknown_args=True,
                    config=(tyro.conf.PositionalMetavarFromFieldName,),
                )
        except SystemExit as stop:
            if not stop.code:
                raise
            raise UserError(f"{self.verb}: {_unbox(complaint.getvalue())}") from None
        return parsed, dataclasses.replace(self, tokens=unknown)

    def configuration(self, load: Callable[[Path], Config] = load, *, epochs: bool = True, here: bool = True) -> Config:
        """Load, override and validate a configuration: FILE [overrides].

        Args:
            load: Loads FILE.
            epochs: Turn `train.epochs` into steps, for which the data set is opened.
            here: As for `validate`.
        """
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
        config = settle(default, overrides.parse(Config, default), rest)
        if epochs:
            config = in_steps(config)
        validate(config, here=here)
        return config


def _flags(kind: type) -> list[str]:
    return [f"--{key}" for key in keys(kind)]


def _unbox(text: str) -> str:
    """Extract the first paragraph of tyro's error box as one line.

    The box is in Unicode or ASCII, with or without colour, depending on the output.
    """
    plain = re.sub(r"\x1b\[[\d;]*m|[│╭╮╰╯]", "", text)
    rule = re.compile("[─-]*")
    below_title = itertools.dropwhile(rule.fullmatch, (line.strip() for line in plain.splitlines()[1:]))
    paragraph = " ".join(itertools.takewhile(lambda line: not rule.fullmatch(line), below_title))
    return paragraph.removeprefix("Error parsing ") or "these arguments are not understood; see --help"
