"""Caption metrics of the COCO evaluation."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from jaxguard.evaluate.measures import Measure, mean
from jaxguard.evaluate.tokens import tokenize

TINY, SMALL = 1e-15, 1e-9
"""Constants that pycocoevalcap adds to BLEU's numerators and denominators."""


def caption_scores(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Tokenise captions and compute the values of `caption_measures`."""
    tokenized = [tokenize(text) for text in predictions], [[tokenize(text) for text in texts] for texts in references]
    return {name: measure.value for name, measure in caption_measures(*tokenized).items()}


def caption_measures(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Measure]:
    """Compute BLEU-1..4, ROUGE-L and CIDEr of tokenised captions, times 100 as papers print them.

    CIDEr weights words by their rarity in these references, so it depends on the set. Bootstrap draws keep the weights
    of the whole set.
    """
    predicted = {index: [text] for index, text in enumerate(predictions)}
    expected = {index: list(texts) for index, texts in enumerate(references)}
    bleu = _bleu_counts(predictions, references)
    measures = {f"bleu_{n}": Measure(bleu, functools.partial(_bleu, order=n)) for n in range(1, 5)}
    return measures | {
        "rouge_l": mean(np.asarray(Rouge().compute_score(expected, predicted)[1], np.float64)),
        "cider": mean(np.asarray(Cider().compute_score(expected, predicted)[1], np.float64)),
    }


def _bleu_counts(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float[np.ndarray, "N 10"]:
    """Count per caption: lengths of prediction and closest reference, n-grams (n = 1..4), matching n-grams."""
    scorer = BleuScorer(n=4)
    for text, texts in zip(predictions, references, strict=True):
        scorer += (text, list(texts))
    return np.array(
        [
            [
                one["testlen"],
                min((abs(length - one["testlen"]), length) for length in one["reflen"])[1],
                *one["guess"],
                *one["correct"],
            ]
            for one in scorer.ctest
        ],
        np.float64,
    )


def _bleu(sums: Float[np.ndarray, "draws 10"], order: int) -> Float[np.ndarray, " draws"]:
    length, reference_length, guessed, right = sums[:, 0], sums[:, 1], sums[:, 2:6], sums[:, 6:10]
    precision = np.prod(((right + TINY) / (guessed + SMALL))[:, :order], axis=1) ** (1 / order)
    length_ratio = (length + TINY) / (reference_length + SMALL)
    return 100 * precision * np.exp(np.minimum(0.0, 1 - 1 / length_ratio))
