"""LLaVA's images and dialogues: one image token per patch of the tower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxguard.errors import UserError
from jaxguard.models import towers
from jaxguard.models.chat_template import open_template
from jaxguard.models.dialogue import Dialogue, named_image
from jaxguard.models.preprocessing import ImagePreprocessor, check_images
from jaxguard.models.processor import Processor
from jaxguard.models.values import whole

SIGLIP_IMAGES = "SiglipImageProcessor"
PROCESSORS = ("CLIPImageProcessor", "LlavaImageProcessor", SIGLIP_IMAGES, "BitImageProcessor")
"""Image processors that LLaVA's towers use; the first is the default."""


@dataclass(frozen=True, kw_only=True)
class LlavaProcessor(Processor):
    """Equivalent of `LlavaProcessor` of `transformers`."""

    image_id: int | None
    preprocessor: ImagePreprocessor

    def image(self, pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
        return self.preprocessor(pixels)

    def dialogue(self, tokenizer: Any, *, template: str | None, ends: tuple[int, ...]) -> Dialogue:
        """Use the chat template, which must exist."""
        image_id = named_image(self.image_id, tokenizer)
        if template is None:
            raise UserError("has no chat template; add chat_template.jinja")
        return open_template(template, tokenizer, image_id=image_id, ends=ends, repeats=self.image_tokens)


def read(config: dict[str, Any], preprocessor: dict[str, Any]) -> LlavaProcessor:
    """Build the processor from the content of config.json and preprocessor_config.json."""
    images = check_images(preprocessor, *PROCESSORS)
    if preprocessor.get("do_pad") and images != "LlavaImageProcessor":
        raise UserError("preprocessor_config.json: do_pad is only supported for LlavaImageProcessor")
    kind, vision = towers.tower(config)
    side, patch = (whole(vision, name, 0, "vision_config") for name in ("image_size", "patch_size"))
    strategy = config.get("vision_feature_select_strategy", "default")
    decoder, text = towers.decoder(config)
    return LlavaProcessor(
        image_shape=(side, side),
        image_tokens=(side // patch) ** 2 + towers.extras(kind, vision) - (strategy == "default"),
        patch_size=patch,
        image_id=config.get("image_token_index"),
        vocabulary=whole(text, "vocab_size", 32000, "text_config"),
        longest=towers.window(decoder, text),
        preprocessor=ImagePreprocessor.read((side, side), preprocessor, crops=images != SIGLIP_IMAGES, pads=True),
    )
