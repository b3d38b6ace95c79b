"""Scores of a predictions file: clean quality, recovery and attack success. No JAX."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxguard.errors import Failure, UserError
from jaxguard.evaluate import java as java_parts
from jaxguard.evaluate.captions import caption_measures
from jaxguard.evaluate.facts import facts_measure
from jaxguard.evaluate.java import Java
from jaxguard.evaluate.measures import Measure, mean
from jaxguard.evaluate.predictions import Prediction
from jaxguard.evaluate.success import AttackSuccess, Rate, attack_success, wilson
from jaxguard.evaluate.tokens import tokenize
from jaxguard.evaluate.vqa import vqa_accuracy
from jaxguard.files import read_object, write_text

Task = Literal["caption", "vqa"]
Quality = dict[str, float]
"""Metric -> percent. `facts` only for known scenes; accuracy with the ends of its 95% Wilson interval."""
Words = tuple[list[str], list[list[str]]]
"""Tokenised predictions, and the tokenised references of each prediction."""


@dataclass(frozen=True)
class Scores:
    """The scores of a run.

    Attributes:
        task: Selects the metrics in `clean` and `recovery`.
        clean: Quality on clean inputs.
        recovery: Quality on triggered inputs against the true answers; None without an attack.
        attack: Success rates; None without an attack.
        examples: Number of "clean" and of "triggered" predictions.
        tokenizer: Tokenizer of the captions; None for answers that are compared as a whole.
        absent: Metrics of the task that are missing -> the reason.
    """

    task: Task
    clean: Quality
    recovery: Quality | None
    attack: AttackSuccess | None
    examples: dict[str, int]
    tokenizer: Literal["python", "java"] | None
    absent: dict[str, str]


def score(predictions: Sequence[Prediction], task: Task, java: Java | None = None) -> Scores:
    """Score the predictions of one system. A pure function of them.

    Args:
        predictions: Predictions for clean inputs and, under an attack, for triggered ones.
        task: Selects the metrics.
        java: Runtime of the original COCO tokenizer, METEOR and SPICE, which take seconds to start.

    Raises:
        UserError: There are no predictions for clean inputs.
        Failure: `java` does not run.
    """
    clean = [p for p in predictions if not p.triggered]
    triggered = [p for p in predictions if p.triggered]
    if not clean:
        raise UserError("no predictions for clean inputs (triggered: false) to score")
    absent: dict[str, str] = {}
    return Scores(
        task=task,
        clean=_quality(clean, task, java, absent),
        recovery=_quality(triggered, task, java, absent) if triggered else None,
        attack=attack_success(predictions) if triggered else None,
        examples={"clean": len(clean), "triggered": len(triggered)},
        tokenizer=None if task == "vqa" else "python" if java is None else "java",
        absent=absent,
    )


def quality_measures(predictions: Sequence[Prediction], task: Task, words: Words | None = None) -> dict[str, Measure]:
    """Compute the metrics of the task that the bootstrap can resample by row.

    Args:
        predictions: At least one, of one system.
        task: Selects the metrics.
        words: The tokenised captions, if they are at hand.
    """
    if task == "vqa":
        return {"accuracy": mean(np.array([vqa_accuracy(p.prediction, p.references) for p in predictions]))}
    measures = caption_measures(*(words or tokenized(predictions)))
    facts = facts_measure(predictions)
    return measures if facts is None else measures | {"facts": facts}


def tokenized(predictions: Sequence[Prediction], java: Java | None = None) -> Words:
    """Tokenise predictions and references; each distinct text once."""
    texts = list(dict.fromkeys(text for p in predictions for text in (p.prediction, *p.references)))
    words = dict(zip(texts, map(tokenize, texts) if java is None else java.tokenize(texts), strict=True))
    return [words[p.prediction] for p in predictions], [[words[text] for text in p.references] for p in predictions]


RENAMED = {
    "triggered": "recovery",
    "attack.untriggered": "attack.exact_on_clean",
    "examples.untriggered": "examples.clean",
}
"""First name of a score -> its name today."""


def migrate(values: Mapping[str, Any], section: str = "") -> dict[str, Any]:
    """Rename the keys of stored scores (scores.json, or a record of a grid) to today's names."""
    return {
        RENAMED.get(section + name, section + name).removeprefix(section): migrate(value, f"{section}{name}.")
        if isinstance(value, Mapping)
        else value
        for name, value in values.items()
    }


def read_scores(path: Path) -> Scores:
    """Read a scores.json of this or an earlier version.

    Raises:
        UserError: It is damaged.
    """
    values = migrate(read_object(path))
    try:
        attack = values["attack"]
        if attack is not None:
            attack = AttackSuccess(**{name: rate and Rate(**rate) for name, rate in attack.items()})
        names = [field.name for field in dataclasses.fields(Scores)]
        return Scores(**{name: values.get(name) for name in names} | {"attack": attack})  # type: ignore[arg-type]
    except (LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: holds no scores ({error}); score the predictions again") from error


def write_scores(scores: Scores, path: Path, about: Mapping[str, Any] | None = None) -> None:
    """Write scores.json atomically; arguments as those of `to_text`."""
    write_text(path, to_text(scores, about))


def to_text(scores: Scores, about: Mapping[str, Any] | None = None) -> str:
    """Format the scores as the JSON object of scores.json; `about` goes first: the evaluation's identity."""
    return json.dumps({**(about or {}), **dataclasses.asdict(scores)}, indent=2) + "\n"


def _quality(predictions: Sequence[Prediction], task: Task, java: Java | None, absent: dict[str, str]) -> Quality:
    if task == "vqa":
        value = quality_measures(predictions, task)["accuracy"].value
        rate = wilson(value / 100 * len(predictions), len(predictions))
        return {"accuracy": value, "accuracy_low": 100 * rate.low, "accuracy_high": 100 * rate.high}
    words = tokenized(predictions, java)
    quality = {name: measure.value for name, measure in quality_measures(predictions, task, words).items()}
    return quality | _java_only(words, java, absent)


def _java_only(words: Words, java: Java | None, absent: dict[str, str]) -> Quality:
    """Compute METEOR and SPICE if possible; otherwise put the reason into `absent`."""
    found: Quality = {}
    for name in ("meteor", "spice"):
        if java is None:
            absent[name] = java_parts.ABSENT
        elif name == "spice" and not java_parts.spice_models():
            absent[name] = java_parts.NO_MODELS
        else:
            try:
                found[name] = 100 * getattr(java, name)(*words)
            except Failure as error:
                absent[name] = str(error)
    return found
