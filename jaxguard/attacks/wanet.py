"""WaNet (arXiv 2102.10369): the image warped by a small displacement field, the same for all rows."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import map_coordinates

from jaxguard.attacks.base import ImageAttack, check_strength, check_variant
from jaxguard.data.views import row_rng

STRENGTHS = {"original": 0.5, "jitter": 1.0}
"""s by variant. `original`: a smooth field from a 4 x 4 grid. `jitter`: k = image height, an independent displacement
of every pixel; papers on multimodal models use it under the same name."""
GRID = 4
CUBIC = -0.75
"""Parameter a of the cubic convolution kernel of PyTorch, with which the original resizes the grid."""


@dataclass(frozen=True)
class WaNet(ImageAttack):
    """Displacements of s / 2 pixels per axis, averaged over the grid's nodes."""

    variant: str = "original"
    strength: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_variant(self.variant, tuple(STRENGTHS))
        object.__setattr__(self, "strength", self.scale)  # for the manifest
        check_strength(self.scale, 64.0, "s, twice the mean displacement in pixels,")

    @property
    def scale(self) -> float:
        """The warping strength s."""
        return STRENGTHS[self.variant] if self.strength is None else self.strength

    def trigger_image(self, image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
        """Sample every pixel at its displaced position, bilinearly, inside the image; round."""
        places = _places(self.variant, self.scale, self.seed, image.shape[0], image.shape[1])
        channels = np.moveaxis(image.astype(np.float64), 2, 0)
        warped = np.stack([map_coordinates(channel, places, order=1) for channel in channels], axis=-1)
        return np.rint(warped).astype(np.uint8)


@functools.lru_cache(maxsize=64)
def _places(variant: str, scale: float, seed: int, height: int, width: int) -> Float[np.ndarray, "2 h w"]:
    """Compute the row and column at which each pixel is sampled.

    As in the original, coordinates run from -1 to 1 over pixel centres; the displacement is s x field / size.
    """
    nodes = (GRID, GRID) if variant == "original" else (height, width)
    field = row_rng("wanet-field", seed, 0, 0).uniform(-1, 1, (2, *nodes))
    field /= np.abs(field).mean()
    if variant == "original":
        field = enlarge(enlarge(field, height, axis=1), width, axis=2)
    sizes = np.array([height, width])[:, None, None]
    displaced = np.mgrid[:height, :width] + scale * field / sizes * (sizes - 1) / 2
    return np.clip(displaced, 0, sizes - 1)


def enlarge(values: Float[np.ndarray, ...], size: int, axis: int) -> Float[np.ndarray, ...]:
    """Resize one axis to `size` samples by cubic convolution; aligned corners, repeated edges."""
    count = values.shape[axis]
    at = np.arange(size) * (count - 1) / max(1, size - 1)
    first = np.floor(at).astype(int) - 1
    weights = np.zeros((size, count))
    for tap in range(4):
        node = np.clip(first + tap, 0, count - 1)
        np.add.at(weights, (np.arange(size), node), _cubic(np.abs(at - (first + tap))))
    return np.moveaxis(np.tensordot(weights, values, axes=(1, axis)), 0, axis)


def _cubic(distance: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    a, d = CUBIC, distance
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))
