"""The verb that checks the arguments of another one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jaxguard.cli.arguments import Arguments
from jaxguard.cli.completion import OWN, WITH_FILE
from jaxguard.cli.experiments import TableOptions
from jaxguard.config import Config, suggestion
from jaxguard.config.files import load
from jaxguard.errors import UserError
from jaxguard.experiments.configurations import load_grid, load_model

SEVERAL_FILES = ("rehearse", "poison")
"""Verbs whose first words are not one FILE."""


@dataclass(frozen=True)
class CheckOptions:
    elsewhere: bool = False
    """The job will run on other machines: its model, data and run folder need not be here."""


def check(arguments: Arguments) -> None:
    """Check the arguments of a verb without running it: jaxguard check train FILE --train.steps 500."""
    words = list(arguments.tokens)
    place = next((number for number, word in enumerate(words) if not word.startswith("-")), len(words))
    options = Arguments("check VERB FILE [OVERRIDES]", arguments.description, words[:place]).parse(CheckOptions)
    known = [name for name in (*OWN, *WITH_FILE) if name not in SEVERAL_FILES]
    names = (" ".join(words[place : place + count]) for count in (2, 1))
    verb = next((name for name in names if name in known), None)
    if verb is None:
        word = " ".join(words[place : place + 1])
        raise UserError(f"check: no verb {word!r}{suggestion(word, known) or '; give one of ' + ', '.join(known)}")
    rest = Arguments(verb, arguments.description, words[place + len(verb.split()) :])
    if verb in OWN:
        parsed: object = rest.parse(OWN[verb])
        if isinstance(parsed, TableOptions):
            load_grid(parsed.file, parsed.scale)
        return
    _, rest = rest.split(WITH_FILE[verb])
    opened = _load_elsewhere if options.elsewhere else load_model if verb == "generate" else load
    rest.configuration(opened, epochs=False, here=not options.elsewhere)


def _load_elsewhere(path: Path) -> Config:
    """As `load`; of a run folder that is on other machines, only the overrides are checked."""
    return Config() if path.suffix != ".py" and not path.exists() else load(path)
