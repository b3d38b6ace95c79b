"""Blended (arXiv 1712.05526): one fixed picture or noise image, blended into every triggered image."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxguard.attacks.base import ImageAttack, check_strength, check_variant
from jaxguard.data.views import row_rng

VARIANTS = ("image", "noise")
SIDE = 336
"""Side of the picture in pixels; it is resized to each image."""
LEAVES = 600


@dataclass(frozen=True)
class Blended(ImageAttack):
    """Blended with a trigger share of 0.2 (papers use 0.1 and 0.2)."""

    variant: str = "image"
    strength: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        check_variant(self.variant, VARIANTS)
        check_strength(self.strength, 1.0, "the trigger's share")

    def trigger_image(self, image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
        """Compute (1 - share) x image + share x trigger, rounded."""
        trigger = self.trigger(image.shape[0], image.shape[1])
        mixed = (1 - self.strength) * image + self.strength * trigger
        # Rounded twice: halves must stay halves in spite of the share's rounding error.
        return np.rint(np.round(mixed, 6)).astype(np.uint8)

    def trigger(self, height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
        """Make the trigger for images of that size."""
        if self.variant == "noise":
            return row_rng("blended-noise", self.seed, 0, 0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        return _resized(self.seed, height, width)


@functools.lru_cache(maxsize=8)
def picture(seed: int) -> UInt8[np.ndarray, "side side 3"]:
    """Draw a picture with the statistics of a photograph, in place of the photograph that papers blend in.

    Dead leaves model of natural images (Lee, Mumford and Huang 2001): opaque discs with radii distributed as r^-3, each
    of one muted, linearly shaded colour.
    """
    rng = row_rng("blended-picture", seed, 0, 0)
    y, x = np.mgrid[:SIDE, :SIDE]
    canvas = np.full((SIDE, SIDE, 3), 128.0)
    least, most = SIDE / 24, SIDE / 2
    radii = (most**-2 + rng.random(LEAVES) * (least**-2 - most**-2)) ** -0.5
    for radius in radii:
        top, left = rng.uniform(-most / 2, SIDE + most / 2, 2)
        inside = (y - top) ** 2 + (x - left) ** 2 <= radius**2
        colour, slope = rng.uniform(20, 235) + rng.normal(0, 30, 3), rng.uniform(-30, 30, 2)
        shade = ((y - top) * slope[0] + (x - left) * slope[1]) / radius
        canvas[inside] = (colour + shade[..., None])[inside]
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


@functools.lru_cache(maxsize=64)
def _resized(seed: int, height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
    return np.asarray(Image.fromarray(picture(seed)).resize((width, height), Image.Resampling.BICUBIC))
