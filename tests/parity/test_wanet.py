"""WaNet against the operations of its authors' code: bicubic `interpolate` and `grid_sample` of torch."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from jaxguard.attacks.wanet import WaNet
from jaxguard.data.views import row_rng


@pytest.mark.parametrize("s", [0.5, 4.0])
def test_original(s):
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    y, x = row_rng("wanet-field", 3, 0, 0).uniform(-1, 1, (2, 4, 4))
    field = torch.from_numpy(np.stack([x, y]))[None]  # grid_sample wants x before y
    field = field / field.abs().mean()
    field = functional.interpolate(field, size=64, mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    steps = torch.linspace(-1, 1, 64, dtype=torch.float64)
    down, across = torch.meshgrid(steps, steps, indexing="ij")
    grid = torch.clamp(torch.stack([across, down], -1)[None] + s * field / 64, -1, 1)
    pixels = torch.from_numpy(image.astype(np.float64)).permute(2, 0, 1)[None]
    expected = functional.grid_sample(pixels, grid, align_corners=True)[0].permute(1, 2, 0).numpy()
    after = WaNet(strength=s, seed=3).trigger_image(image, np.random.default_rng(0))
    assert np.abs(after - expected).max() <= 0.5 + 1e-6
