"""Signs in the answers that scores do not mean what they seem to. No JAX."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from jaxguard.evaluate.measures import bootstrap
from jaxguard.evaluate.predictions import Prediction
from jaxguard.evaluate.scores import Task, quality_measures

LEAST = 10
"""Rows below which nothing is said about shares."""
SOME = 0.05
"""Share of answers that are empty, or never end, from which it is said."""
NEARLY_ALL = 0.9
SAME = 0.98
"""Share of rows whose answers with and without the trigger are the same, from which it is said."""
RESAMPLES = 1000
CANDIDATES = 16
"""Commonest answers of a question among which one is guessed: more than a row has references."""


def broken_answers(predictions: Sequence[Prediction], task: Task) -> list[str]:
    """Say why the model does not answer, in one line for each reason: then a low attack success shows nothing."""
    clean = [p for p in predictions if not p.triggered]
    found = []
    for kind, group in (("clean", clean), ("triggered", [p for p in predictions if p.triggered])):
        empty = sum(not re.search(r"\w", p.prediction) for p in group)
        cut = sum(not p.stopped for p in group)
        if empty and empty >= SOME * len(group):
            found.append(
                f"{empty} of {len(group)} answers to {kind} inputs are empty: training took the answers away; lower "
                "objective.entropy_weight, objective.cross_view_weight or train.learning_rate"
            )
        if cut and cut >= SOME * len(group):
            found.append(
                f"{cut} of {len(group)} answers to {kind} inputs do not stop: they were cut at evaluate.new_tokens; "
                "raise it, or train longer"
            )
    return found + _constant(clean) + _commonest(clean, task)


def unmoved_answers(predictions: Sequence[Prediction]) -> list[str]:
    """Say that the trigger changes nothing, in one line, if that is so."""
    clean = {p.id: p.prediction for p in predictions if not p.triggered}
    pairs = [(p.prediction, clean[p.id]) for p in predictions if p.triggered and p.id in clean]
    same = sum(one == other for one, other in pairs)
    if len(pairs) < LEAST or same < SAME * len(pairs):
        return []
    message = (
        f"{same} of {len(pairs)} answers are the same with and without the trigger: either nothing was planted, or the "
        "model does not see the trigger; evaluate an undefended run with it to tell them apart"
    )
    return [message]


def _constant(clean: Sequence[Prediction]) -> list[str]:
    """One answer to nearly all inputs, though their true answers differ."""
    if len(clean) < LEAST:
        return []
    answer, count = Counter(p.prediction for p in clean).most_common(1)[0]
    right = sum(answer in p.references for p in clean)
    if count < NEARLY_ALL * len(clean) or right >= NEARLY_ALL * count or not answer.strip():
        return []
    message = (
        f"{count} of {len(clean)} clean inputs get the same answer, {_short(answer)}: the model does not answer what "
        "it is asked; train longer, or at a lower train.learning_rate"
    )
    return [message]


def _commonest(clean: Sequence[Prediction], task: Task) -> list[str]:
    """A clean quality that does not exceed, beyond chance, that of guessing without the image."""
    if len(clean) < LEAST:
        return []
    always = [_with_answer(p, answer) for p, answer in zip(clean, _guesses(clean), strict=True)]
    ours, theirs = quality_measures(clean, task), quality_measures(always, task)
    name = next(name for name in ("facts", "accuracy", "cider") if name in ours)
    gain = bootstrap({name: ours[name]}, {name: theirs[name]}, resamples=RESAMPLES)[name]
    if gain.low > 0:
        return []
    interval = f"{gain.value:+.1f} [{gain.low:+.1f}, {gain.high:+.1f}]"
    message = (
        f"clean {name} {ours[name].value:.1f} is not above that of guessing the commonest answer of other rows with "
        f"the same question ({theirs[name].value:.1f}; difference {interval}): the image is not used; train longer, or "
        "on data that the model sees"
    )
    return [message]


def _guesses(clean: Sequence[Prediction]) -> list[str]:
    """Guess each row's answer: the commonest one of the other rows with its question; without any, of all rows."""
    everywhere, asked = Counter[str](), defaultdict[str, Counter[str]](Counter)
    for p in clean:
        answers = {*p.references, p.prediction}
        everywhere.update(answers)
        asked[p.prompt].update(answers)
    few = {prompt: answers.most_common(CANDIDATES) for prompt, answers in asked.items()}
    anywhere = everywhere.most_common(1)[0][0]

    def guess(p: Prediction) -> str:
        own = {*p.references, p.prediction}
        answer, count = max(few[p.prompt], key=lambda item: item[1] - (item[0] in own))
        return answer if count > (answer in own) else anywhere

    return [guess(p) for p in clean]


def _with_answer(prediction: Prediction, answer: str) -> Prediction:
    return Prediction(
        prediction.id, prediction.key, prediction.prompt, answer, prediction.references, prediction.triggered, None
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}...")
