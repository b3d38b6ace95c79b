"""SIG (arXiv 1902.11237): a horizontal sinusoid over the whole image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from jaxguard.attacks.base import ImageAttack, check_strength

FREQUENCY = 6
"""Periods over the image's width."""


@dataclass(frozen=True)
class Sig(ImageAttack):
    """SIG with an amplitude of 40 of 255 grey levels. The trigger does not depend on `seed`."""

    strength: float = 40.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_strength(self.strength, 255.0, "the amplitude in grey levels")

    def trigger_image(self, image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
        """Add strength x sin(2 pi j f / width) to column j, round and clip."""
        width = image.shape[1]
        wave = self.strength * np.sin(2 * np.pi * FREQUENCY * np.arange(width) / width)
        return np.clip(np.rint(image + wave[None, :, None]), 0, 255).astype(np.uint8)
