"""Parsing of the words after a verb; every mistake is reported in one line."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import re
import shutil
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

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
        prog = f"jaxguard {self.verb} FILE [OVERRIDES]"
        if any(word in HELP for word in self.tokens):
            first = self.tokens[0]
            file = load(Path(first)) if not first.startswith("-") and Path(first).exists() else Config()
            print(self._help(kind, default, prog) + _boxes(self._help(Config, file, prog)), end="")
            raise SystemExit(0)
        return self._split(kind, default, prog)

    def _help(self, kind: type, default: object, prog: str) -> str:
        """Make tyro's help, its lines of usage and description as wide as the terminal."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            _cli(kind, ["--help"], default, prog, self.description)
        usage, description, rest = printed.getvalue().split("\n\n", 2)
        return f"{wrapped(usage)}\n\n{wrapped(description)}\n\n{rest}"

    def _split(self, kind: type[T], default: T | None, prog: str) -> tuple[T, Arguments]:
        if any(word in HELP for word in self.tokens):
            print(self._help(kind, default, prog), end="")
            raise SystemExit(0)
        complaint = io.StringIO()
        try:
            with contextlib.redirect_stderr(complaint):
                parsed, unknown = _cli(kind, self.tokens, default, prog, self.description)
        except SystemExit:
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


def wrapped(text: str, indent: str = "  ") -> str:
    """Fill a paragraph to the width of the terminal."""
    width = shutil.get_terminal_size((120, 24)).columns
    return textwrap.fill(text, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


def _cli(kind: type, tokens: Sequence[str], default: object, prog: str, description: str) -> Any:
    return tyro.cli(
        kind,
        args=tokens,
        default=tyro.MISSING_NONPROP if default is None else default,
        prog=prog,
        description=description,
        use_underscores=True,
        return_unknown_args=True,
        config=(tyro.conf.PositionalMetavarFromFieldName,),
    )


def _boxes(text: str) -> str:
    """Leave out usage and description of a help."""
    return text.split("\n\n", 2)[2]


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
