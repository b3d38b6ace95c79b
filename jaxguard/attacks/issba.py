"""ISSBA (arXiv 2012.03816): an invisible residual of its own for every image, made by a learnt encoder.

The encoder hides a bit string in the image such that a decoder can read it; the attacker fixes the string. It works on
a 64-pixel copy of the image and its residual is enlarged to the image, so cost and visibility do not depend on size.
What it learns is in `issba_training`; here it only runs, in NumPy, so that reader threads and processes need no JAX.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from jaxguard.attacks.base import ImageAttack, check_strength
from jaxguard.attacks.learned import Learned, learn_once, pixels_hash, sample_rows
from jaxguard.config import Config
from jaxguard.data.views import row_rng

SIDE = 64
"""Pixels of the copy that the encoder reads."""
BITS = 16
SECRET_GRID = 8
"""The string enters as a learnt map of so many cells a side."""
SECRET_CHANNELS = 8
LAYERS = ((12, 1), (12, 2), (3, 1))
"""Channels and dilation of the encoder's 3 x 3 convolutions."""
ROWS = 1024


@dataclass(frozen=True)
class Issba(ImageAttack):
    """A residual of at most `strength` grey levels: 10 keeps every image at 28 dB or more."""

    strength: float = 10.0
    seed: int = 0
    learned: Learned | None = dataclasses.field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_strength(self.strength, 255.0, "the largest residual in grey levels")

    def learn(self, config: Config) -> Issba:
        """The attack with its encoder, trained on clean training rows or read from the cache (`learned`)."""
        from jaxguard.attacks import issba_training

        rows = sample_rows(config, ROWS)
        shape = {"side": SIDE, "bits": BITS, "grid": SECRET_GRID, "channels": SECRET_CHANNELS, "layers": LAYERS}
        training = dataclasses.asdict(issba_training.TRAINING)
        settings = {"strength": self.strength, "seed": self.seed, "rows": pixels_hash(rows), **shape, **training}
        images = np.stack([reduced(row.image) for row in rows])
        learned = learn_once(
            config,
            "issba",
            settings,
            lambda: issba_training.train_encoder(images, strength=self.strength, seed=self.seed),
        )
        return dataclasses.replace(self, learned=learned)

    def trigger_image(self, image: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "H W 3"]:
        """The image plus its residual, rounded and clipped."""
        height, width = image.shape[:2]
        residual = self.residual(image)
        if (height, width) != (SIDE, SIDE):
            channels = [
                Image.fromarray(channel).resize((width, height), Image.Resampling.BILINEAR)
                for channel in np.moveaxis(residual, 2, 0)
            ]
            residual = np.stack([np.asarray(channel) for channel in channels], axis=-1)
        return np.clip(np.rint(image + residual.astype(np.float64)), 0, 255).astype(np.uint8)

    def residual(self, image: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "64 64 3"]:
        """What the encoder adds to the 64-pixel copy of an image, in grey levels.

        Raises:
            RuntimeError: `learn` was not called.
        """
        if self.learned is None:
            raise RuntimeError("ISSBA triggers nothing before it has learnt")
        weights = self.learned.tensors
        cells = np.maximum(secret(self.seed) @ weights["secret.kernel"] + weights["secret.bias"], 0)
        cells = cells.reshape(SECRET_GRID, SECRET_GRID, SECRET_CHANNELS)
        scale = SIDE // SECRET_GRID
        x = np.concatenate(
            [reduced(image) / np.float32(255) - np.float32(0.5), cells.repeat(scale, 0).repeat(scale, 1)], -1
        )
        for layer, (_, dilation) in enumerate(LAYERS):
            x = _convolve(x, weights[f"layer{layer}.kernel"], dilation) + weights[f"layer{layer}.bias"]
            if layer < len(LAYERS) - 1:
                x = np.maximum(x, 0)
        return np.float32(self.strength) * np.tanh(x)


def secret(seed: int) -> Float32[np.ndarray, " B"]:
    """The attacker's bits, as 0 and 1."""
    return row_rng("issba-secret", seed, 0, 0).integers(0, 2, BITS).astype(np.float32)


def reduced(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "64 64 3"]:
    """The copy that the encoder reads."""
    if image.shape[:2] == (SIDE, SIDE):
        return image
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _convolve(
    x: Float[np.ndarray, "H W I"], kernel: Float[np.ndarray, "3 3 I O"], dilation: int
) -> Float[np.ndarray, "H W O"]:
    """A 3 x 3 convolution with zeros around the image."""
    height, width = x.shape[:2]
    padded = np.pad(x, ((dilation, dilation), (dilation, dilation), (0, 0)))
    y = np.zeros((height, width, kernel.shape[3]), x.dtype)
    for row, column in np.ndindex(3, 3):
        top, left = row * dilation, column * dilation
        y += padded[top : top + height, left : left + width] @ kernel[row, column]
    return y
