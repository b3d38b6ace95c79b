"""LLaVA's images and dialogues: one image token per patch of the tower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxguard.errors import UserError
from jaxguard.models.chat_template import open_template
from jaxguard.models.dialogue import Dialogue, named_image
from jaxguard.models.preprocessing import ImagePreprocessor
from jaxguard.models.processor import Processor
from jaxguard.models.values import whole


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
    kind = preprocessor.get("image_processor_type", "").removesuffix("Fast")
    if preprocessor.get("do_pad") and kind != "LlavaImageProcessor":
        raise UserError("preprocessor_config.json: do_pad is only supported for LlavaImageProcessor")
    vision = config.get("vision_config") or {}
    side, patch = (
        whole(vision, name, default, "vision_config") for name, default in (("image_size", 224), ("patch_size", 32))
    )
    class_token = config.get("vision_feature_select_strategy", "default") == "full"
    return LlavaProcessor(
        image_shape=(side, side),
        image_tokens=(side // patch) ** 2 + class_token,
        patch_size=patch,
        image_id=config.get("image_token_index"),
        vocabulary=whole(config.get("text_config") or {}, "vocab_size", 32000, "text_config"),
        preprocessor=ImagePreprocessor.read((side, side), preprocessor, crops=True, pads=True),
    )
