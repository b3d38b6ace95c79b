"""Scores of a predictions file: clean quality, quality under the trigger, attack success. No JAX."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from jaxguard.errors import Failure, UserError
from jaxguard.evaluate import java as java_parts
from jaxguard.evaluate.captions import caption_measures
from jaxguard.evaluate.facts import facts_measure
from jaxguard.evaluate.java import Java
from jaxguard.evaluate.measures import Measure, mean
from jaxguard.evaluate.predictions import Prediction
from jaxguard.evaluate.success import AttackSuccess, attack_success, wilson
from jaxguard.evaluate.tokens import tokenize
from jaxguard.evaluate.vqa import vqa_accuracy
from jaxguard.files import write_text

Task = Literal["caption", "vqa"]
Quality = dict[str, float]
"""Metric -> percent; `facts` where the scenes are known; for accuracy also the ends of its 95% Wilson interval."""
Words = tuple[list[str], list[list[str]]]
"""Tokenised predictions, and the tokenised references of each."""


@dataclass(frozen=True)
class Scores:
    """Everything that is reported of a run.

    Attributes:
        task: which metrics `clean` and `triggered` hold.
        clean: quality on untriggered inputs.
        triggered: quality on triggered inputs against the true answers (recovery); None without an attack.
        attack: success rates; None without an attack.
        examples: untriggered and triggered predictions.
        tokenizer: what split the captions: "python" or "java"; None for answers that are compared whole.
        absent: metrics of the task that are missing, and why.
    """

    task: Task
    clean: Quality
    triggered: Quality | None
    attack: AttackSuccess | None
    examples: dict[str, int]
    tokenizer: Literal["python", "java"] | None
    absent: dict[str, str]


def score(predictions: Sequence[Prediction], task: Task, java: Java | None = None) -> Scores:
    """A pure function of the predictions.

    Args:
        predictions: of one system.
        task: which metrics.
        java: for the COCO evaluation's own tokenizer, METEOR and SPICE, which take seconds to start.

    Raises:
        UserError: there are no untriggered ones.
        Failure: `java` does not run.
    """
    plain = [p for p in predictions if not p.triggered]
    triggered = [p for p in predictions if p.triggered]
    if not plain:
        raise UserError("no untriggered predictions to score")
    absent: dict[str, str] = {}
    return Scores(
        task=task,
        clean=_quality(plain, task, java, absent),
        triggered=_quality(triggered, task, java, absent) if triggered else None,
        attack=attack_success(predictions) if triggered else None,
        examples={"untriggered": len(plain), "triggered": len(triggered)},
        tokenizer=None if task == "vqa" else "python" if java is None else "java",
        absent=absent,
    )


def quality_measures(predictions: Sequence[Prediction], task: Task, words: Words | None = None) -> dict[str, Measure]:
    """Every metric of the task that can be drawn again row by row.

    Args:
        predictions: of one system, at least one.
        task: which metrics.
        words: captions tokenised already.
    """
    if task == "vqa":
        return {"accuracy": mean(np.array([vqa_accuracy(p.prediction, p.references) for p in predictions]))}
    measures = caption_measures(*(words or tokenized(predictions)))
    facts = facts_measure(predictions)
    return measures if facts is None else measures | {"facts": facts}


def tokenized(predictions: Sequence[Prediction], java: Java | None = None) -> Words:
    """The words of the predictions and of their references."""
    texts = list(dict.fromkeys(text for p in predictions for text in (p.prediction, *p.references)))
    words = dict(zip(texts, map(tokenize, texts) if java is None else java.tokenize(texts), strict=True))
    return [words[p.prediction] for p in predictions], [[words[text] for text in p.references] for p in predictions]


def write_scores(scores: Scores, path: Path) -> None:
    """As JSON; atomically."""
    write_text(path, to_text(scores))


def to_text(scores: Scores) -> str:
    """The JSON object that scores.json holds."""
    return json.dumps(dataclasses.asdict(scores), indent=2) + "\n"


def _quality(predictions: Sequence[Prediction], task: Task, java: Java | None, absent: dict[str, str]) -> Quality:
    if task == "vqa":
        value = quality_measures(predictions, task)["accuracy"].value
        rate = wilson(value / 100 * len(predictions), len(predictions))
        return {"accuracy": value, "accuracy_low": 100 * rate.low, "accuracy_high": 100 * rate.high}
    words = tokenized(predictions, java)
    quality = {name: measure.value for name, measure in quality_measures(predictions, task, words).items()}
    return quality | _java_only(words, java, absent)


def _java_only(words: Words, java: Java | None, absent: dict[str, str]) -> Quality:
    """METEOR and SPICE where they can be had; why not, into `absent`."""
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
