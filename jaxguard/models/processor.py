"""Interface of a model family for the data side. Imports NumPy but no JAX, which loader processes do not need."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8

from jaxguard.models.dialogue import Dialogue


@dataclass(frozen=True)
class Processor(abc.ABC):
    """Image preprocessing and dialogue format of one checkpoint.

    Attributes:
        image_shape: (height, width) of the vision tower's input, in pixels.
        image_tokens: number of tokens of a row per image.
        patch_size: side in pixels of the patch of each image token; None if image tokens are not single patches.
        position_axes: shape of one token's position: () for a number, (3,) for time, row and column.
        vocabulary: number of rows of the model's embedding table; None does not check tokens.
        longest: number of rows of its position table; None if positions are computed.
    """

    image_shape: tuple[int, int]
    image_tokens: int
    patch_size: int | None = None
    position_axes: tuple[int, ...] = ()
    vocabulary: int | None = None
    longest: int | None = None

    @abc.abstractmethod
    def image(self, pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
        """Return pixels of shape `image_shape` for the vision tower; the module normalises them."""

    @abc.abstractmethod
    def dialogue(self, tokenizer: Any, *, template: str | None, ends: tuple[int, ...]) -> Dialogue:
        """Build the dialogue format.

        Args:
            tokenizer: the checkpoint's.
            template: its chat template; None if it has none.
            ends: ids of the tokens that end an answer, as its configuration names them.

        Raises:
            UserError: the checkpoint's files do not define it.
        """

    def positions(self, tokens: Int32[np.ndarray, " T"]) -> Int32[np.ndarray, " T *axes"]:
        """Return the positions of one dialogue without padding, whose image tokens are already repeated."""
        return np.arange(len(tokens), dtype=np.int32)
