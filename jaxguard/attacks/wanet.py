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
"""s by variant. `original`: a smooth field from a 4 x 4 grid. `jitter`: k = image height, so that each pixel has a
displacement of its own; papers on multimodal models run this under the same name."""
GRID = 4
CUBIC = -0.75
"""The parameter a of the cubic convolution kernel by which PyTorch, and so the original, enlarges the grid."""


@dataclass(frozen=True)
class WaNet(ImageAttack):
    """Displacements of s / 2 pixels on average over the grid's nodes, per axis."""

    variant: str = "original"
    strength: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_variant(self.variant, tuple(STRENGTHS))
        object.__setattr__(self, "strength", self.scale)  # so that a manifest says it
        check_strength(self.scale, 64.0, "s, twice the mean displacement in pixels,")

    @property
    def scale(self) -> float:
        """s."""
        return STRENGTHS[self.variant] if self.strength is None else self.strength

    def trigger_image(self, image: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "H W 3"]:
        """Each pixel from its displaced place, read bilinearly inside the image, rounded."""
        places = _places(self.variant, self.scale, self.seed, image.shape[0], image.shape[1])
        channels = np.moveaxis(image.astype(np.float64), 2, 0)
        warped = np.stack([map_coordinates(channel, places, order=1) for channel in channels], axis=-1)
        return np.rint(warped).astype(np.uint8)


@functools.lru_cache(maxsize=64)
def _places(variant: str, scale: float, seed: int, height: int, width: int) -> Float[np.ndarray, "2 H W"]:
    """Row and column that each pixel is read from.

    As in the original, coordinates run from -1 to 1 over the pixels' centres, and the displacement is s x field / size.
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
    """Cubic convolution along one axis to `size` samples, corners on corners, edges repeated."""
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
