"""BLIP-2's images and dialogues: one image token per query, before the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxguard.models.chat_template import open_template
from jaxguard.models.dialogue import PLACE, Dialogue, FixedDialogue, named_image
from jaxguard.models.preprocessing import ImagePreprocessor, check_images
from jaxguard.models.processor import Processor
from jaxguard.models.values import whole


@dataclass(frozen=True, kw_only=True)
class Blip2Processor(Processor):
    """Equivalent of `Blip2Processor` of `transformers`."""

    image_id: int | None
    preprocessor: ImagePreprocessor

    def image(self, pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
        return self.preprocessor(pixels)

    def dialogue(self, tokenizer: Any, *, template: str | None, ends: tuple[int, ...]) -> Dialogue:
        """Use the chat template or, if there is none, "Question: ... Answer:" as in the paper and its model card."""
        image_id = named_image(self.image_id, tokenizer)
        lead = (image_id,) * self.image_tokens
        if template is not None:
            return open_template(template, tokenizer, image_id=image_id, ends=ends, lead=lead)
        return FixedDialogue(
            image_id=image_id,
            end_id=ends[0],
            stops=ends,
            lead=lead,
            opening=f"Question: {PLACE} Answer:",
            end=tokenizer.convert_ids_to_tokens(ends[0]),
        )


def read(config: dict[str, Any], preprocessor: dict[str, Any]) -> Blip2Processor:
    """Build the processor from the content of config.json and preprocessor_config.json."""
    check_images(preprocessor, "BlipImageProcessor")
    side, text = (
        whole(config.get("vision_config") or {}, "image_size", 224, "vision_config"),
        config.get("text_config") or {},
    )
    return Blip2Processor(
        image_shape=(side, side),
        image_tokens=whole(config, "num_query_tokens", 32),
        image_id=config.get("image_token_index"),
        vocabulary=whole(text, "vocab_size", 50272, "text_config"),
        longest=whole(text, "max_position_embeddings", 2048, "text_config"),
        preprocessor=ImagePreprocessor.read((side, side), preprocessor, crops=False),
    )
