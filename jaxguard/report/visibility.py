"""Visibility of a change to an image: PSNR and SSIM."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import UInt8
from scipy.ndimage import gaussian_filter

PEAK = 255.0
SIGMA, RADIUS = 1.5, 5
"""SSIM's Gaussian window: standard deviation in pixels, 11 x 11."""
K1, K2 = 0.01, 0.03


def psnr(before: UInt8[np.ndarray, "h w 3"], after: UInt8[np.ndarray, "h w 3"]) -> float:
    """Compute the peak signal-to-noise ratio in dB; infinite for equal images."""
    error = np.square(before.astype(np.float64) - after).mean()
    return math.inf if error == 0 else 10 * math.log10(PEAK**2 / error)


def ssim(before: UInt8[np.ndarray, "h w 3"], after: UInt8[np.ndarray, "h w 3"]) -> float:
    """Compute the structural similarity (Wang et al. 2004): mean over channels and over windows inside the image.

    At most 1. Images must be at least 11 x 11 pixels.
    """
    x, y = before.astype(np.float64), after.astype(np.float64)
    mean_x, mean_y = _windowed(x), _windowed(y)
    spread_x, spread_y = _windowed(x * x) - mean_x**2, _windowed(y * y) - mean_y**2
    together = _windowed(x * y) - mean_x * mean_y
    c1, c2 = (K1 * PEAK) ** 2, (K2 * PEAK) ** 2
    brightness = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * together + c2) / (spread_x + spread_y + c2)
    return float((brightness * structure).mean())


def _windowed(values: np.ndarray) -> np.ndarray:
    """Compute Gaussian means around every pixel whose window is inside the image."""
    means = gaussian_filter(values, (SIGMA, SIGMA, 0), radius=(RADIUS, RADIUS, 0))
    return means[RADIUS:-RADIUS, RADIUS:-RADIUS]
