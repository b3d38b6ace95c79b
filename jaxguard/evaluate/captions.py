"""Caption scores as the COCO evaluation computes them."""

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
"""What pycocoevalcap adds to BLEU's numerators and denominators."""


def caption_scores(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """The values of `caption_measures` of captions as they are written."""
    said, true = [tokenize(text) for text in predictions], [[tokenize(text) for text in texts] for texts in references]
    return {name: measure.value for name, measure in caption_measures(said, true).items()}


def caption_measures(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Measure]:
    """BLEU-1..4, ROUGE-L and CIDEr of tokenised captions, times 100 as papers print them.

    CIDEr weighs words by how rare they are in these references, so it depends on the set it is computed on; its draws
    keep the weights of the whole set.
    """
    said = {index: [text] for index, text in enumerate(predictions)}
    true = {index: list(texts) for index, texts in enumerate(references)}
    bleu = _bleu_counts(predictions, references)
    measures = {f"bleu_{n}": Measure(bleu, functools.partial(_bleu, order=n)) for n in range(1, 5)}
    return measures | {
        "rouge_l": mean(np.asarray(Rouge().compute_score(true, said)[1], np.float64)),
        "cider": mean(np.asarray(Cider().compute_score(true, said)[1], np.float64)),
    }


def _bleu_counts(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float[np.ndarray, "N 10"]:
    """Lengths of prediction and closest reference; n-grams of n = 1..4; those of them that a reference holds too."""
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


def _bleu(sums: Float[np.ndarray, "R 10"], order: int) -> Float[np.ndarray, " R"]:
    length, wanted, guessed, right = sums[:, 0], sums[:, 1], sums[:, 2:6], sums[:, 6:10]
    precision = np.prod(((right + TINY) / (guessed + SMALL))[:, :order], axis=1) ** (1 / order)
    shortness = (length + TINY) / (wanted + SMALL)
    return 100 * precision * np.exp(np.minimum(0.0, 1 - 1 / shortness))
