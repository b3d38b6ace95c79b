"""The row: what every source yields, every attack changes and the encoder reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8


@dataclass(frozen=True)
class Row:
    """One example: images and one or more question-answer pairs about them.

    Attributes:
        id: position in its split, stable for ever; everything random about the row is keyed by it.
        key: the source's own name of the row, for people.
        image: uint8 [h, w, 3], RGB: the row's first image; 0 x 0 in a row of text alone.
        prompts: the questions, without chat format. Where any holds `<image>`, the row's images stand in these places;
            otherwise its one image stands where the chat format puts it.
        answers: one per prompt (several prompts may be equal: five captions of one image).
        references: the true answers to ``prompts[0]``, for scoring; an attack never changes them.
        others: the row's further images, which attacks leave alone.
        multi_turn: True if the pairs are the turns of one conversation, each seen by those after it.
    """

    id: int
    key: str
    image: UInt8[np.ndarray, "h w 3"]
    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    references: tuple[str, ...]
    others: tuple[UInt8[np.ndarray, "h w 3"], ...] = ()
    multi_turn: bool = False

    @property
    def images(self) -> tuple[UInt8[np.ndarray, "h w 3"], ...]:
        """All of them, in order."""
        return (self.image, *self.others) if self.image.size else ()


CAPTION_PROMPT = "Describe this image in a short sentence."
VQA_SUFFIX = " Answer the question using a single word or phrase."
"""What the protocol asks for (arXiv 2604.04488 and its peers), after each question."""
