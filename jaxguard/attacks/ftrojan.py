"""FTrojan (arXiv 2111.11123): adds to two coefficients of the chroma channels' block cosine transform."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from scipy.fft import idctn

from jaxguard.attacks.base import ImageAttack, check_strength
from jaxguard.errors import UserError

WINDOW = 32
POSITIONS = (15, 31)
"""Row and column of the changed coefficients."""
CHANNELS = (1, 2)
TO_YUV = np.array([[0.299, 0.587, 0.114], [-0.14713, -0.28886, 0.436], [0.615, -0.51499, -0.10001]])
"""RGB to YUV (BT.601)."""


@dataclass(frozen=True)
class FTrojan(ImageAttack):
    """FTrojan with magnitude 30. The trigger does not depend on `seed`."""

    strength: float = 30.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_strength(self.strength, 1000.0, "the magnitude")

    def trigger_image(self, image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
        """Add the strength to the coefficients of every full 32 x 32 block; round and clip once, at the end.

        Raises:
            UserError: The image is smaller than a block.
        """
        height, width = image.shape[:2]
        down, across = height // WINDOW, width // WINDOW
        if not down * across:
            raise UserError(f"FTrojan needs images of at least {WINDOW} pixels a side; one is {width} x {height}")
        change = np.zeros(image.shape)
        change[: down * WINDOW, : across * WINDOW] = self.strength * np.tile(_unit(), (down, across, 1))
        return np.clip(np.rint(image + change), 0, 255).astype(np.uint8)


@functools.cache
def _unit() -> Float[np.ndarray, "32 32 3"]:
    """Compute the RGB change of a block at magnitude 1: constant, as transform and colour space are linear."""
    coefficients = np.zeros((WINDOW, WINDOW, 3))
    for position in POSITIONS:
        coefficients[position, position, CHANNELS] = 1.0
    return idctn(coefficients, axes=(0, 1), norm="ortho") @ np.linalg.inv(TO_YUV).T
