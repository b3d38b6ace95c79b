"""How many of a scene's facts its captions state rightly: a sharper score than n-grams, where the scene is known."""

from __future__ import annotations

from collections.abc import Sequence

from jaxguard.data.scene_language import fact_score
from jaxguard.data.scenes import SPLITS, sample
from jaxguard.evaluate.predictions import Prediction


def known_scene(key: str) -> tuple[str, int] | None:
    """(split, index) that a row's key names, if it is a scene of `jaxguard.data.scenes`."""
    source, _, place = key.partition("/")
    split, _, index = place.partition("/")
    return (split, int(index)) if source == "scenes" and split in SPLITS and index.isdecimal() else None


def facts_right(predictions: Sequence[Prediction]) -> float | None:
    """Percent of all facts (size, colour and shape of each thing, relations between) that are stated rightly.

    None unless every prediction is of a known scene.
    """
    known = [known_scene(prediction.key) for prediction in predictions]
    counts = [
        fact_score(prediction.prediction, sample(*place))
        for prediction, place in zip(predictions, known, strict=True)
        if place is not None
    ]
    if not counts or len(counts) < len(predictions):
        return None
    return 100 * sum(right for right, _ in counts) / sum(stated for _, stated in counts)
