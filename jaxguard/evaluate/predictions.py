"""The predictions file: what a model answered. Scores are a pure function of it."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxguard.errors import UserError


@dataclass(frozen=True)
class Prediction:
    """One answer.

    Attributes:
        id: row id in the test split.
        key: the source's own name of the row.
        prompt: the question, without chat format.
        prediction: what the model answered.
        references: the true answers.
        triggered: the input carried the attack's trigger.
        target: the text the attacker wants; None where there is no attack.
    """

    id: int
    key: str
    prompt: str
    prediction: str
    references: tuple[str, ...]
    triggered: bool
    target: str | None


_KINDS: dict[str, tuple[type, ...]] = {
    "id": (int,),
    "key": (str,),
    "prompt": (str,),
    "prediction": (str,),
    "references": (list,),
    "triggered": (bool,),
    "target": (str, type(None)),
}


def to_line(prediction: Prediction) -> str:
    """One JSON object without a line break."""
    return json.dumps(dataclasses.asdict(prediction), ensure_ascii=False)


def write_predictions(predictions: Iterable[Prediction], path: Path) -> None:
    """One JSON object a line; atomically."""
    partial = path.with_suffix(".partial")
    with partial.open("w") as file:
        for prediction in predictions:
            file.write(to_line(prediction) + "\n")
    os.replace(partial, path)


def read_predictions(path: Path) -> list[Prediction]:
    """The predictions of a file that any system may have written.

    Raises:
        UserError: the first line that is not a prediction, by number.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a readable predictions file ({error})") from error
    return [from_line(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]


def from_line(line: str, where: str) -> Prediction:
    """What `to_line`, or any system, wrote; `where` is named in the error."""
    try:
        values: Any = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: not JSON ({error}); one object a line is wanted") from error
    if not isinstance(values, dict):
        raise UserError(f"{where}: a {type(values).__name__}, not an object with {', '.join(_KINDS)}")
    for name, kinds in _KINDS.items():
        if name not in values:
            raise UserError(f"{where}: no {name!r}; an object with {', '.join(_KINDS)} is wanted")
        if type(values[name]) not in kinds:
            raise UserError(f"{where}: {name!r} is {values[name]!r}; a {kinds[0].__name__} is wanted")
    references = values["references"]
    if not references or not all(isinstance(reference, str) for reference in references):
        raise UserError(f"{where}: 'references' must be a list of at least one text")
    return Prediction(**{name: values[name] for name in _KINDS} | {"references": tuple(references)})
