"""Caption scores as the COCO evaluation computes them, with a tokenisation that needs no Java."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

_CONTRACTION = re.compile(r"(?<=[a-z])('s|'m|'d|'ll|'re|'ve|n't)\b")
_TOKEN = re.compile(r"'(?:s|m|d|ll|re|ve)\b|n't\b|\w+(?:[-/.,:'’]\w+)*|[$%&#@+=*°£€]")  # noqa: RUF001 (curly quote)


def tokenize(caption: str) -> str:
    """Lower-case words as the Penn Treebank tokenizer splits them, without punctuation, joined by spaces."""
    text = _CONTRACTION.sub(r" \1", " ".join(caption.lower().split()))
    text = re.sub(r"\bcannot\b", "can not", text)
    return " ".join(_TOKEN.findall(text))


def caption_scores(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """BLEU-1..4, ROUGE-L and CIDEr, times 100 as papers print them.

    CIDEr weighs words by how rare they are in these references, so it depends on the set it is computed on.
    """
    said = {index: [tokenize(text)] for index, text in enumerate(predictions)}
    true = {index: [tokenize(text) for text in texts] for index, texts in enumerate(references)}
    with contextlib.redirect_stdout(io.StringIO()):  # the package prints lengths
        bleu, _ = Bleu(4).compute_score(true, said, verbose=0)
        rouge, _ = Rouge().compute_score(true, said)
        cider, _ = Cider().compute_score(true, said)
    scores = {f"bleu_{n}": value for n, value in enumerate(bleu, 1)} | {"rouge_l": rouge, "cider": cider}
    return {name: 100 * float(value) for name, value in scores.items()}
