"""How many of a scene's facts its captions state rightly: a sharper score than n-grams, where the scene is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxguard.data.scene_language import fact_score
from jaxguard.data.scenes import SPLITS, sample
from jaxguard.evaluate.measures import Measure, ratio
from jaxguard.evaluate.predictions import Prediction


def known_scene(key: str) -> tuple[str, int] | None:
    """(split, index) that a row's key names, if it is a scene of `jaxguard.data.scenes`."""
    source, _, place = key.partition("/")
    split, _, index = place.partition("/")
    known = source == "scenes" and split in SPLITS and index.isdecimal() and len(index) < 10
    return (split, int(index)) if known else None


def facts_measure(predictions: Sequence[Prediction]) -> Measure | None:
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
    right, stated = np.array(counts, np.float64).T
    return ratio(right, stated)
