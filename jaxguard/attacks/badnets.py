"""BadNets (arXiv 1708.06733): a small noise patch in a fixed corner or at a place drawn per row."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from jaxguard.config import AttackConfig
from jaxguard.data.views import row_rng
from jaxguard.errors import UserError

SHARE = 30 / 336
"""Side of the patch over the shorter side of the image: 30 pixels at 336."""


class BadNets:
    """One noise patch for all rows, drawn from the attack's seed."""

    def __init__(self, config: AttackConfig):
        self.place, self.seed = config.place, config.seed

    def trigger_image(self, image: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "H W 3"]:
        """The patch in the bottom right corner, or at a place drawn by `rng`."""
        height, width = image.shape[:2]
        side = max(2, round(SHARE * min(height, width)))
        if side > min(height, width):
            raise UserError(f"a BadNets patch of {side} pixels is larger than a {width} x {height} image")
        patch = row_rng("badnets-patch", self.seed, 0, side).integers(0, 256, (side, side, 3), dtype=np.uint8)
        top, left = height - side, width - side
        if self.place == "random":
            top, left = int(rng.integers(top + 1)), int(rng.integers(left + 1))
        triggered = image.copy()
        triggered[top : top + side, left : left + side] = patch
        return triggered

    def trigger_prompt(self, prompt: str, rng: np.random.Generator) -> str:
        """Unchanged: BadNets has no text trigger."""
        return prompt
