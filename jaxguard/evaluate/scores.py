"""Scores of a predictions file: clean quality, quality under the trigger, attack success. No JAX."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxguard.errors import UserError
from jaxguard.evaluate.captions import caption_scores
from jaxguard.evaluate.facts import facts_right
from jaxguard.evaluate.predictions import Prediction
from jaxguard.evaluate.success import AttackSuccess, attack_success, wilson
from jaxguard.evaluate.vqa import vqa_accuracy
from jaxguard.files import write_text

Task = Literal["caption", "vqa"]
Quality = dict[str, float]
"""Metric -> percent; `facts` where the scenes are known; for accuracy also the ends of its 95% Wilson interval."""


@dataclass(frozen=True)
class Scores:
    """Everything that is reported of a run.

    Attributes:
        task: which metrics `clean` and `triggered` hold.
        clean: quality on untriggered inputs.
        triggered: quality on triggered inputs against the true answers (recovery); None without an attack.
        attack: success rates; None without an attack.
        examples: untriggered and triggered predictions.
    """

    task: Task
    clean: Quality
    triggered: Quality | None
    attack: AttackSuccess | None
    examples: dict[str, int]


def score(predictions: Sequence[Prediction], task: Task) -> Scores:
    """A pure function of the predictions.

    Raises:
        UserError: there are no untriggered ones.
    """
    plain = [p for p in predictions if not p.triggered]
    triggered = [p for p in predictions if p.triggered]
    if not plain:
        raise UserError("no untriggered predictions to score")
    return Scores(
        task=task,
        clean=_quality(plain, task),
        triggered=_quality(triggered, task) if triggered else None,
        attack=attack_success(predictions) if triggered else None,
        examples={"untriggered": len(plain), "triggered": len(triggered)},
    )


def write_scores(scores: Scores, path: Path) -> None:
    """As JSON; atomically."""
    write_text(path, json.dumps(dataclasses.asdict(scores), indent=2) + "\n")


def _quality(predictions: Sequence[Prediction], task: Task) -> Quality:
    if task == "caption":
        scores = caption_scores([p.prediction for p in predictions], [p.references for p in predictions])
        facts = facts_right(predictions)
        return scores if facts is None else scores | {"facts": facts}
    accuracies = [vqa_accuracy(p.prediction, p.references) for p in predictions]
    rate = wilson(sum(accuracies), len(accuracies))
    return {
        "accuracy": 100 * sum(accuracies) / len(accuracies),
        "accuracy_low": 100 * rate.low,
        "accuracy_high": 100 * rate.high,
    }
