"""BadNets (arXiv 1708.06733): a small noise patch in a fixed corner or at a random position per row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from jaxguard.attacks.base import ImageAttack, check_strength
from jaxguard.data.views import row_rng
from jaxguard.errors import UserError

SHARE = 30 / 336
"""Side of the patch over the shorter side of the image: 30 pixels at 336, which is 20 at 224."""


@dataclass(frozen=True)
class BadNets(ImageAttack):
    """One noise patch for all rows, drawn from the attack's seed."""

    place: Literal["fixed", "random"] = "random"
    strength: float = SHARE
    seed: int = 0

    def __post_init__(self) -> None:
        check_share(self.strength)

    def trigger_image(self, image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
        """Stamp the patch into the bottom right corner, or at a position drawn by `rng`."""
        patch = noise_patch(image, self.strength, self.seed)
        return stamp(image, patch, *corner(image, patch, self.place, rng))


def check_share(strength: float) -> None:
    """Raise UserError if the strength of a patch attack is not in (0, 1]."""
    check_strength(
        strength, 1.0, "the side of the patch over the image's shorter side (above 1 it is larger than the image)"
    )


def noise_patch(image: UInt8[np.ndarray, "h w 3"], share: float, seed: int) -> UInt8[np.ndarray, "side side 3"]:
    """Draw the noise patch for the size of an image: `share` of its shorter side, at least 2 pixels.

    Raises:
        UserError: The image is smaller than the patch.
    """
    height, width = image.shape[:2]
    side = patch_side(height, width, share)
    return row_rng("badnets-patch", seed, 0, side).integers(0, 256, (side, side, 3), dtype=np.uint8)


def patch_side(height: int, width: int, share: float) -> int:
    """Compute a patch's side in pixels: `share` of the image's shorter side, at least 2.

    Raises:
        UserError: The image is smaller than the patch.
    """
    side = max(2, round(share * min(height, width)))
    if side > min(height, width):
        raise UserError(f"a patch of {side} pixels is larger than a {width} x {height} image")
    return side


def corner(
    image: UInt8[np.ndarray, "h w 3"], patch: UInt8[np.ndarray, "side side 3"], place: str, rng: np.random.Generator
) -> tuple[int, int]:
    """Choose the patch's top left corner: bottom right of the image ("fixed"), or drawn by `rng` ("random")."""
    top, left = (whole - part for whole, part in zip(image.shape[:2], patch.shape[:2], strict=True))
    return (int(rng.integers(top + 1)), int(rng.integers(left + 1))) if place == "random" else (top, left)


def stamp(
    image: UInt8[np.ndarray, "h w 3"], patch: UInt8[np.ndarray, "side side 3"], top: int, left: int
) -> UInt8[np.ndarray, "h w 3"]:
    """Copy the image and overwrite a square with the patch."""
    triggered = image.copy()
    triggered[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
    return triggered
