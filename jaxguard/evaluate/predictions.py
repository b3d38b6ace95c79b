"""The predictions file: a model's answers. Scores are a pure function of it."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxguard.config import suggestion
from jaxguard.errors import UserError


@dataclass(frozen=True)
class Prediction:
    """One answer of a model.

    Attributes:
        id: Row id in the test split; unique together with `triggered`.
        key: Name of the row in its source.
        prompt: Question, without chat format.
        prediction: Answer of the model.
        references: True answers.
        triggered: True if the input carried the attack's trigger.
        target: Text that the attacker wants; None without an attack.
        stopped: False if the answer was cut at the largest number of tokens, without the token that ends an answer.
    """

    id: int
    key: str
    prompt: str
    prediction: str
    references: tuple[str, ...]
    triggered: bool
    target: str | None
    stopped: bool = True


_KINDS: dict[str, tuple[type, ...]] = {
    "id": (int,),
    "key": (str,),
    "prompt": (str,),
    "prediction": (str,),
    "references": (list,),
    "triggered": (bool,),
    "target": (str, type(None)),
    "stopped": (bool,),
}
_NOUNS: dict[type, str] = {int: "a whole number", str: "a text", list: "a list of texts", bool: "true or false"}
REQUIRED = ("id", "prediction", "references")
"""Keys that every line must have. The others have defaults, so that other systems' answers can be scored."""
LONGEST = 10_000
"""Longest prediction or reference, in characters: comparing two takes time in the product of their lengths."""


def to_line(prediction: Prediction, evaluation: str | None = None) -> str:
    """Format a prediction as one line of JSON, with the name of its evaluation if there is one."""
    named = {} if evaluation is None else {"evaluation": evaluation}
    return json.dumps(dataclasses.asdict(prediction) | named, ensure_ascii=False)


def write_predictions(predictions: Iterable[Prediction], path: Path, evaluation: str | None = None) -> None:
    """Write one JSON object per line, atomically; each names its evaluation if that has a name."""
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        for prediction in predictions:
            file.write(to_line(prediction, evaluation) + "\n")
    os.replace(partial, path)


def read_predictions(path: Path) -> list[Prediction]:
    """Read a predictions file of any system.

    Raises:
        UserError: A malformed or repeated line (the first one is named), or an empty file.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a readable predictions file ({error})") from error
    found: dict[tuple[int, bool], int] = {}
    predictions = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        prediction = from_line(line, f"{path}:{number}")
        first = found.setdefault((prediction.id, prediction.triggered), number)
        if first != number:
            state = "triggered" if prediction.triggered else "clean"
            raise UserError(f"{path}:{number}: id {prediction.id} ({state}) was answered in line {first} already")
        predictions.append(prediction)
    if not predictions:
        raise UserError(f"{path} holds no predictions")
    return predictions


def from_line(line: str, where: str) -> Prediction:
    """Parse a line of a predictions file; `where` names it in errors."""
    try:
        values: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error}); write one object per line") from error
    if not isinstance(values, dict):
        raise UserError(f"{where}: a {type(values).__name__}, not an object with {', '.join(REQUIRED)}")
    missing = [name for name in _KINDS if name not in values]
    for name in values:
        hint = "" if name in _KINDS else suggestion(name, missing)
        if hint:
            raise UserError(f"{where}: unknown {name!r}{hint}")
    for name in REQUIRED:
        if name in missing:
            raise UserError(f"{where}: no {name!r}; an object with {', '.join(REQUIRED)} is wanted")
    for name, kinds in _KINDS.items():
        if name not in missing and type(values[name]) not in kinds:
            raise UserError(f"{where}: {name!r} is {_short(values[name])}; {_NOUNS[kinds[0]]} is wanted")
    references = values["references"]
    if not references or not all(isinstance(reference, str) for reference in references):
        raise UserError(f"{where}: 'references' must be a list of at least one text")
    for name, text in [*values.items(), *(("references", text) for text in references)]:
        if name in _KINDS and isinstance(text, str):
            _check_text(text, f"{where}: {name!r}", compared=name in ("prediction", "references"))
    defaults: dict[str, Any] = {"key": str(values["id"]), "prompt": "", "triggered": False, "target": None}
    given = {name: values[name] for name in _KINDS if name in values}
    return Prediction(**defaults | given | {"references": tuple(references)})


def _check_text(text: str, what: str, *, compared: bool) -> None:
    if compared and len(text) > LONGEST:
        raise UserError(f"{what} has {len(text)} characters; at most {LONGEST} are scored")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{what} holds half a character (a lone surrogate); write it as UTF-8") from error


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
