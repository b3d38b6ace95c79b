"""Images for the tests of triggers."""

import numpy as np
import pytest

from jaxguard.data import scenes


@pytest.fixture(scope="session")
def pictures() -> list[np.ndarray]:
    """Eight scenes, then five images whose spectrum falls as f^-1.2 like that of photographs, in several shapes."""
    found = [scenes.render(scenes.sample("test", index)) for index in range(8)]
    for seed, (height, width) in enumerate([(64, 64), (48, 96), (97, 71), (224, 224), (336, 448)]):
        rng = np.random.default_rng(seed)
        frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
        frequency[0, 0] = np.inf
        spectrum = rng.normal(size=(3, height, width)) + 1j * rng.normal(size=(3, height, width))
        field = np.fft.ifft2(spectrum / frequency**1.2).real
        levels = 128 + 50 * (field[0] + 0.5 * field) / field[0].std()
        found.append(np.clip(np.moveaxis(levels, 0, 2), 0, 255).astype(np.uint8))
    return found


@pytest.fixture(scope="session")
def speckle() -> np.ndarray:
    """Noise of every level from 0 to 255, which shows clipping and rounding."""
    return np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
