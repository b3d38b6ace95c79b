"""LLaVA's images and dialogues: one image token per patch of the tower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxguard.errors import UserError
from jaxguard.models.dialogue import Dialogue, image_token, next_turn, template
from jaxguard.models.preprocessing import ImagePreprocessor
from jaxguard.models.processor import Processor


@dataclass(frozen=True, kw_only=True)
class LlavaProcessor(Processor):
    """Equivalent of `LlavaProcessor` of `transformers`."""

    config: dict[str, Any]
    preprocessor: ImagePreprocessor

    def image(self, pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
        return self.preprocessor(pixels)

    def dialogue(self, tokenizer: Any) -> Dialogue:
        """Use the chat template, which must exist."""
        image_id = image_token(self.config, tokenizer)
        text, plain = template(tokenizer, image=True), template(tokenizer, image=False)
        if text is None or plain is None:
            raise UserError("has no chat template; add chat_template.jinja")
        end_id, end = tokenizer.eos_token_id, tokenizer.eos_token
        turn, picture = next_turn(tokenizer, end), tokenizer.convert_ids_to_tokens(image_id)
        return Dialogue(
            text, plain, turn, picture, image_id, self.image_tokens, (), special=True, end_id=end_id, end=end
        )


def read(config: dict[str, Any], preprocessor: dict[str, Any]) -> LlavaProcessor:
    """Build the processor from the content of config.json and preprocessor_config.json."""
    kind = preprocessor.get("image_processor_type", "").removesuffix("Fast")
    if preprocessor.get("do_pad") and kind != "LlavaImageProcessor":
        raise UserError("preprocessor_config.json: do_pad is only supported for LlavaImageProcessor")
    vision = config.get("vision_config") or {}
    side, patch = vision.get("image_size", 224), vision.get("patch_size", 32)
    class_token = config.get("vision_feature_select_strategy", "default") == "full"
    return LlavaProcessor(
        image_shape=(side, side),
        image_tokens=(side // patch) ** 2 + class_token,
        patch_size=patch,
        config=config,
        preprocessor=ImagePreprocessor.read((side, side), preprocessor, crops=True, pads=True),
    )
