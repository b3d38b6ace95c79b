"""What the data side asks of a model family. Imports NumPy alone: the loader's processes need no JAX."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8

from jaxguard.models.dialogue import Dialogue


@dataclass(frozen=True)
class Processor(abc.ABC):
    """How one checkpoint reads images and writes dialogues.

    Attributes:
        image_shape: (height, width) of the vision tower's input, in pixels.
        image_tokens: tokens of a row that stand for one image.
        patch_size: side in pixels of the patch that each image token stands for; None where tokens stand for more.
        position_axes: shape of one token's position: () if it is a number, (3,) for time, row and column.
    """

    image_shape: tuple[int, int]
    image_tokens: int
    patch_size: int | None = None
    position_axes: tuple[int, ...] = ()

    @abc.abstractmethod
    def image(self, pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
        """The pixels that the vision tower is given, of shape `image_shape`; normalisation is the module's."""

    @abc.abstractmethod
    def dialogue(self, tokenizer: Any) -> Dialogue:
        """How questions and answers are written.

        Raises:
            UserError: the checkpoint's files do not say how.
        """

    def positions(self, tokens: Int32[np.ndarray, " T"]) -> Int32[np.ndarray, " T *axes"]:
        """The positions of a row without padding: of one dialogue, its image tokens already repeated."""
        return np.arange(len(tokens), dtype=np.int32)
