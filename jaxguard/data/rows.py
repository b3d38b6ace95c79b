"""The row: the unit that sources yield, attacks modify and the encoder reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8


@dataclass(frozen=True)
class Row:
    """One example: images and one or more question-answer pairs about them.

    Attributes:
        id: position in its split, which never changes; all random choices about the row are keyed by it.
        key: the source's own name of the row, for display.
        image: uint8 [h, w, 3], RGB: the row's first image; 0 x 0 in a text-only row.
        prompts: the questions, without chat format. If any holds `<image>`, these are the places of the row's images;
            otherwise the chat format places its one image.
        answers: one per prompt (several prompts may be equal: five captions of one image).
        references: the true answers to ``prompts[0]``, for scoring; attacks never change them.
        others: the row's further images, which attacks do not change.
        multi_turn: True if the pairs are the turns of one conversation, each visible to later ones.
        system: text before the first turn; empty if there is none.
    """

    id: int
    key: str
    image: UInt8[np.ndarray, "h w 3"]
    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    references: tuple[str, ...]
    others: tuple[UInt8[np.ndarray, "h w 3"], ...] = ()
    multi_turn: bool = False
    system: str = ""

    @property
    def images(self) -> tuple[UInt8[np.ndarray, "h w 3"], ...]:
        """All images, in order."""
        return (self.image, *self.others) if self.image.size else ()


CAPTION_PROMPT = "Describe this image in a short sentence."
VQA_SUFFIX = " Answer the question using a single word or phrase."
"""Suffix of each question in the protocol of arXiv 2604.04488 and related work."""
