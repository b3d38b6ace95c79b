"""ISSBA (arXiv 2012.03816): an invisible, sample-specific residual from a learnt encoder.

The encoder hides a bit string in the image so that a decoder can read it; the attacker fixes the string. It works on a
64-pixel copy of the image. The residual is resized to the image, so cost and visibility do not depend on image size.
`issba_training` trains the encoder with JAX. This module runs it with NumPy: data workers do not import JAX.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from jaxguard.attacks.base import ImageAttack, check_strength
from jaxguard.attacks.learned import Learned, learn_once, pixels_hash, sample_rows
from jaxguard.config import DataConfig, ModelConfig
from jaxguard.data.views import row_rng

SIDE = 64
"""Side of the encoder's input, in pixels."""
BITS = 16
SECRET_GRID = 8
"""Cells per side of the learnt map through which the bit string enters."""
SECRET_CHANNELS = 8
LAYERS = ((12, 1), (12, 2), (3, 1))
"""Channels and dilation of the encoder's 3 x 3 convolutions."""
ROWS = 1024


@dataclass(frozen=True)
class Issba(ImageAttack):
    """A residual of at most `strength` grey levels. 10 keeps the PSNR of every image at 28 dB or more."""

    strength: float = 10.0
    seed: int = 0
    learned: Learned | None = dataclasses.field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_strength(self.strength, 255.0, "the largest residual in grey levels")

    def learn(self, data: DataConfig, model: ModelConfig) -> Issba:
        """Train the encoder on clean training rows, or read it from the cache. Does not use the model."""
        from jaxguard.attacks import issba_training

        rows = sample_rows(data, ROWS)
        shape = {"side": SIDE, "bits": BITS, "grid": SECRET_GRID, "channels": SECRET_CHANNELS, "layers": LAYERS}
        training = dataclasses.asdict(issba_training.TRAINING)
        settings = {"strength": self.strength, "seed": self.seed, "rows": pixels_hash(rows), **shape, **training}
        images = np.stack([reduced(row.image) for row in rows])
        learned = learn_once(
            data.root,
            "issba",
            settings,
            lambda: issba_training.train_encoder(images, strength=self.strength, seed=self.seed),
        )
        return dataclasses.replace(self, learned=learned)

    def trigger_image(self, image: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "H W 3"]:
        """Add the residual to the image, round and clip."""
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
        """Compute the residual of the 64-pixel copy of an image, in grey levels.

        Raises:
            RuntimeError: `learn` was not called.
        """
        if self.learned is None:
            raise RuntimeError("ISSBA has no trigger before it has learnt one; call learn()")
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
    """Draw the attacker's bit string, as 0 and 1."""
    return row_rng("issba-secret", seed, 0, 0).integers(0, 2, BITS).astype(np.float32)


def reduced(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "64 64 3"]:
    """Resize an image to the encoder's input."""
    if image.shape[:2] == (SIDE, SIDE):
        return image
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _convolve(
    x: Float[np.ndarray, "H W I"], kernel: Float[np.ndarray, "3 3 I O"], dilation: int
) -> Float[np.ndarray, "H W O"]:
    """Convolve 3 x 3 with zero padding."""
    height, width = x.shape[:2]
    padded = np.pad(x, ((dilation, dilation), (dilation, dilation), (0, 0)))
    y = np.zeros((height, width, kernel.shape[3]), x.dtype)
    for row, column in np.ndindex(3, 3):
        top, left = row * dilation, column * dilation
        y += padded[top : top + height, left : left + width] @ kernel[row, column]
    return y
