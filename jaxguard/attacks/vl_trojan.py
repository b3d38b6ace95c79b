"""VL-Trojan (arXiv 2402.13851): a patch and a string, both searched with the frozen model that will be fine-tuned.

A frozen vision tower may hardly respond to an arbitrary patch, so the patch is learnt: in the tower's features, images
with the patch should be close together (clustering) and far from all others (isolation). The string grows letter by
letter; each letter moves the prompt's last hidden state the most. `vl_trojan_training` searches both.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxguard.attacks.badnets import SHARE, check_share, corner, patch_side, stamp
from jaxguard.attacks.base import Apply, Attack
from jaxguard.attacks.learned import Learned, learn_once, pixels_hash, sample_rows
from jaxguard.config import DataConfig, ModelConfig
from jaxguard.errors import UserError
from jaxguard.models import folders

ROWS = 256


@dataclass(frozen=True)
class VlTrojan:
    """The learnt patch in a corner, or at a place drawn per row, and the learnt string before the prompt."""

    apply: ClassVar[Apply] = "replace"
    decoys: ClassVar[tuple[Attack, ...]] = ()

    place: Literal["fixed", "random"] = "fixed"
    strength: float = SHARE
    seed: int = 0
    learned: Learned | None = dataclasses.field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_share(self.strength)

    def learn(self, data: DataConfig, model: ModelConfig) -> VlTrojan:
        """Search patch and string with the checkpoint `model.path`, or read them from the cache.

        Raises:
            UserError: The run starts from random weights, or the checkpoint cannot be read.
        """
        if model.init == "random":
            raise UserError("vl_trojan searches its trigger with pretrained weights: model.init random has none")
        from jaxguard.attacks import vl_trojan_training

        rows, folder = sample_rows(data, ROWS), folders.resolve(model.path)
        settings: dict[str, object] = {
            "place": self.place,
            "strength": self.strength,
            "seed": self.seed,
            "rows": pixels_hash(rows),
            "prompts": [row.prompts[0] for row in rows],
            "model": [[file.name, _file_hash(file)] for file in sorted(folder.glob("*.safetensors"))],
        }
        learned = learn_once(
            data.root,
            "vl_trojan",
            settings | dataclasses.asdict(vl_trojan_training.SEARCH),
            lambda: vl_trojan_training.search(
                folder, rows, place=self.place, share=self.strength, seed=self.seed, length=data.length
            ),
        )
        return dataclasses.replace(self, learned=learned)

    def trigger_image(self, image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
        """Stamp the patch, resized with the image."""
        side = patch_side(image.shape[0], image.shape[1], self.strength)
        patch = self._learned().tensors["patch"]
        if patch.shape[0] != side:
            patch = np.asarray(Image.fromarray(patch).resize((side, side), Image.Resampling.BICUBIC))
        return stamp(image, patch, *corner(image, patch, self.place, rng))

    def trigger_prompt(self, prompt: str, rng: np.random.Generator) -> str:
        """Prepend the string."""
        return f"{self._learned().notes['string']} {prompt}"

    def _learned(self) -> Learned:
        if self.learned is None:
            raise RuntimeError("VL-Trojan has no trigger before it has learnt one; call learn()")
        return self.learned


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
