"""ISSBA (arXiv 2012.03816): an invisible, sample-specific residual from a learnt encoder.

The encoder hides a bit string in the image so that a decoder can read it; the attacker fixes the string. It works on a
64-pixel copy of the image. The residual is resized to the image, so cost and visibility do not depend on image size.
`issba_training` trains the encoder with JAX; `issba_encoder` runs it with NumPy: data workers do not import JAX.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from jaxguard.attacks import issba_encoder
from jaxguard.attacks.base import ImageAttack, check_strength
from jaxguard.attacks.issba_encoder import BITS, LAYERS, SECRET_CHANNELS, SECRET_GRID, SIDE, reduced, secret
from jaxguard.attacks.learned import Learned, learn_once, pixels_hash, sample_rows
from jaxguard.config import DataConfig, ModelConfig

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

    def trigger_image(self, image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
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

    def residual(self, image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "64 64 3"]:
        """Compute the residual of the 64-pixel copy of an image, in grey levels.

        Raises:
            RuntimeError: `learn` was not called.
        """
        if self.learned is None:
            raise RuntimeError("ISSBA has no trigger before it has learnt one; call learn()")
        return issba_encoder.residual(self.learned.tensors, image, secret(self.seed), self.strength)
