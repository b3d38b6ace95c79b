"""Images of 24 x 40 pixels, whose patches have positions of row and column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxguard.models.chat_template import open_template
from jaxguard.models.dialogue import Dialogue
from jaxguard.models.preprocessing import ImagePreprocessor
from jaxguard.models.processor import Processor


@dataclass(frozen=True, kw_only=True)
class ToyProcessor(Processor):
    image_id: int
    preprocessor: ImagePreprocessor

    def image(self, pixels):
        return self.preprocessor(pixels)

    def dialogue(self, tokenizer: Any, *, template: str | None, ends: tuple[int, ...]) -> Dialogue:
        assert template is not None
        return open_template(template, tokenizer, image_id=self.image_id, ends=ends, repeats=self.image_tokens)

    def positions(self, tokens):
        """Of a patch, its row and column behind the text before it; the text goes on behind both."""
        assert self.patch_size is not None
        rows, columns = (side // self.patch_size for side in self.image_shape)
        grid = np.indices((rows, columns)).reshape(2, -1).T
        found, start, place = [], 0, 0
        while place < len(tokens):
            image = tokens[place] == self.image_id
            found.append(start + (grid if image else grid[:1]))
            place += len(found[-1])
            start += max(rows, columns) if image else 1
        return np.concatenate(found).astype(np.int32)


def read(config: dict[str, Any], preprocessor: dict[str, Any]) -> ToyProcessor:
    (height, width), patch = config["vision_config"]["image_size"], config["vision_config"]["patch_size"]
    return ToyProcessor(
        image_shape=(height, width),
        image_tokens=(height // patch) * (width // patch),
        patch_size=patch,
        position_axes=(2,),
        image_id=config["image_token_index"],
        preprocessor=ImagePreprocessor.read((height, width), preprocessor, crops=False),
    )
