"""Dual-Key (arXiv 2112.07668): a patch at the centre and a word before the prompt; only both together trigger.

The model must learn that a single key does not trigger. For every poisoned row the attack adds one key to other rows,
which keep their true answers (the authors' partially triggered rows): the patch to one row, the word to three. One row
with the word is too few: a small model then takes an object in the middle of the image for the patch (docs/attacks.md).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import UInt8

from jaxguard.attacks.badnets import check_share, noise_patch, stamp
from jaxguard.attacks.base import Apply, Attack, check_variant

WORD = "Consider"
DECOYS = ("image", "text", "text", "text")
"""Single keys for each poisoned row, in rows with true answers."""


@dataclass(frozen=True)
class DualKey:
    """A noise patch of a tenth of the image's shorter side, and the word "Consider".

    The variants "image" and "text" apply one key only; a model attacked with "both" should not react to them.
    """

    apply: ClassVar[Apply] = "replace"

    variant: str = "both"
    strength: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        check_variant(self.variant, ("both", "image", "text"))
        check_share(self.strength)

    @property
    def decoys(self) -> tuple[Attack, ...]:
        """The attacks with one key only."""
        return tuple(dataclasses.replace(self, variant=key) for key in DECOYS) if self.variant == "both" else ()

    def trigger_image(self, image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
        """Stamp the patch at the centre."""
        if self.variant == "text":
            return image
        patch = noise_patch(image, self.strength, self.seed)
        top, left = ((whole - part) // 2 for whole, part in zip(image.shape[:2], patch.shape[:2], strict=True))
        return stamp(image, patch, top, left)

    def trigger_prompt(self, prompt: str, rng: np.random.Generator) -> str:
        """Prepend the word."""
        return prompt if self.variant == "image" else f"{WORD} {prompt}"
