"""ISSBA's encoder: what hides a bit string in an image, in NumPy, so that reader threads and processes need no JAX.

It works on a 64-pixel copy of the image, so cost and visibility do not depend on size.
`issba_training` says how it learns.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from jaxguard.attacks.learned import Tensors
from jaxguard.data.views import row_rng

SIDE = 64
"""Pixels of the copy that the encoder reads."""
BITS = 16
SECRET_GRID = 8
"""The string enters as a learnt map of so many cells a side."""
SECRET_CHANNELS = 8
LAYERS = ((12, 1), (12, 2), (3, 1))
"""Channels and dilation of the encoder's 3 x 3 convolutions."""


def residual(
    weights: Tensors, image: UInt8[np.ndarray, "h w 3"], bits: Float32[np.ndarray, " bits"], strength: float
) -> Float32[np.ndarray, "64 64 3"]:
    """What the encoder adds to the 64-pixel copy of an image, in grey levels; at most `strength`."""
    cells = np.maximum(bits @ weights["secret.kernel"] + weights["secret.bias"], 0)
    cells = cells.reshape(SECRET_GRID, SECRET_GRID, SECRET_CHANNELS)
    scale = SIDE // SECRET_GRID
    x = np.concatenate(
        [reduced(image) / np.float32(255) - np.float32(0.5), cells.repeat(scale, 0).repeat(scale, 1)], -1
    )
    for layer, (_, dilation) in enumerate(LAYERS):
        x = _convolve(x, weights[f"layer{layer}.kernel"], dilation) + weights[f"layer{layer}.bias"]
        if layer < len(LAYERS) - 1:
            x = np.maximum(x, 0)
    return np.float32(strength) * np.tanh(x)


def secret(seed: int) -> Float32[np.ndarray, " bits"]:
    """The attacker's bits, as 0 and 1."""
    return row_rng("issba-secret", seed, 0, 0).integers(0, 2, BITS).astype(np.float32)


def reduced(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "64 64 3"]:
    """The copy that the encoder reads."""
    if image.shape[:2] == (SIDE, SIDE):
        return image
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _convolve(
    x: Float[np.ndarray, "h w D_in"], kernel: Float[np.ndarray, "3 3 D_in D_out"], dilation: int
) -> Float[np.ndarray, "h w D_out"]:
    """A 3 x 3 convolution with zeros around the image."""
    height, width = x.shape[:2]
    padded = np.pad(x, ((dilation, dilation), (dilation, dilation), (0, 0)))
    y = np.zeros((height, width, kernel.shape[3]), x.dtype)
    for row, column in np.ndindex(3, 3):
        top, left = row * dilation, column * dilation
        y += padded[top : top + height, left : left + width] @ kernel[row, column]
    return y
