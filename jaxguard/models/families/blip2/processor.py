"""BLIP-2's images and dialogues: one image token per query, before the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxguard.models.dialogue import PLACE, Dialogue, image_token, template
from jaxguard.models.preprocessing import ImagePreprocessor
from jaxguard.models.processor import Processor


@dataclass(frozen=True, kw_only=True)
class Blip2Processor(Processor):
    """Equivalent of `Blip2Processor` of `transformers`."""

    config: dict[str, Any]
    preprocessor: ImagePreprocessor

    def image(self, pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
        return self.preprocessor(pixels)

    def dialogue(self, tokenizer: Any) -> Dialogue:
        """Use the chat template or, if there is none, "Question: ... Answer:" as in the paper and its model card."""
        image_id = image_token(self.config, tokenizer)
        text = template(tokenizer, image=False) or f"Question: {PLACE} Answer:"
        named = (self.config.get("text_config") or {}).get("eos_token_id")
        end_id = named if isinstance(named, int) else tokenizer.eos_token_id
        lead, end = (image_id,) * self.image_tokens, tokenizer.convert_ids_to_tokens(end_id)
        return Dialogue(text, text, None, None, image_id, 1, lead, special=True, end_id=end_id, end=end)


def read(config: dict[str, Any], preprocessor: dict[str, Any]) -> Blip2Processor:
    """Build the processor from the content of config.json and preprocessor_config.json."""
    side = (config.get("vision_config") or {}).get("image_size", 224)
    return Blip2Processor(
        image_shape=(side, side),
        image_tokens=config.get("num_query_tokens", 32),
        config=config,
        preprocessor=ImagePreprocessor.read((side, side), preprocessor, crops=False),
    )
