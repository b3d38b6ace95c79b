"""Share of a scene's facts that a caption states correctly: stricter than n-grams, for procedural scenes only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxguard.data.scene_language import fact_score, restore
from jaxguard.data.scenes import SPLITS, sample
from jaxguard.evaluate.measures import Measure, ratio
from jaxguard.evaluate.predictions import Prediction

RENAMED = "renamed_scenes"
"""In the keys of rows that say invented words."""


def known_scene(key: str) -> tuple[str, int] | None:
    """Parse a row's key: (split, index) of a scene of `jaxguard.data.scenes`, or None."""
    source, _, place = key.partition("/")
    split, _, index = place.partition("/")
    known = source in ("scenes", RENAMED) and split in SPLITS and index.isdecimal() and len(index) < 10
    return (split, int(index)) if known else None


def facts_measure(predictions: Sequence[Prediction]) -> Measure | None:
    """Measure the percentage of facts (size, colour and shape of each object, relations) stated correctly.

    None unless every prediction is for a known scene.
    """
    known = [known_scene(prediction.key) for prediction in predictions]
    texts = [prediction.prediction for prediction in predictions]
    counts = [
        fact_score(restore(text) if prediction.key.startswith(RENAMED) else text, sample(*place))
        for prediction, text, place in zip(predictions, texts, known, strict=True)
        if place is not None
    ]
    if not counts or len(counts) < len(predictions):
        return None
    right, stated = np.array(counts, np.float64).T
    return ratio(right, stated)
