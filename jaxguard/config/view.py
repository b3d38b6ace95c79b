"""`view`: the perturbed second view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxguard.config.checks import check_share, require


@dataclass(frozen=True)
class ViewConfig:
    """The perturbed second view. Deterministic in (seed, epoch, row id)."""

    patch_size: int = 8
    """Side of a patch in pixels of the model's input; independent of the model's own patch size."""
    shuffle_share: float = 0.5
    """Share of the patches that are permuted among themselves."""
    window: int = 0
    """Permute inside windows of `window` x `window` patches; 0 permutes over the whole image."""
    mask_share: float = 0.1
    """Share of the patches that are masked."""
    mask_fill: Literal["mean", "zero", "noise", "drop"] = "mean"
    """Fill of masked patches. `drop` removes them: vision tower and language model then run on fewer tokens."""
    jitter: bool = False
    """Offset the patch grid randomly by less than one patch."""
    rows: float = 1.0
    """Share of a batch's rows that get a second view; other rows in every epoch."""

    def __post_init__(self) -> None:
        require(self.patch_size >= 1, f"view.patch_size is {self.patch_size}: must be at least 1 pixel")
        require(self.window >= 0 and self.window != 1, f"view.window is {self.window}: use 0 (global) or at least 2")
        check_share("view.shuffle_share", self.shuffle_share)
        check_share("view.mask_share", self.mask_share)
        require(self.mask_share < 1.0, "view.mask_share is 1.0: a view that hides every patch carries nothing")
        require(
            self.mask_fill != "drop" or not self.jitter,
            "view.jitter is on: patches that are dropped must lie on the model's own grid",
        )
        require(0 < self.rows <= 1, f"view.rows is {self.rows}: must be in (0, 1]")
