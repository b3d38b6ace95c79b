"""IDEFICS's images and dialogues: one token marks the place of an image, which cross-attention reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxguard.models.dialogue import IMAGE, PLACE, Dialogue, image_token, next_turn, template, token_id
from jaxguard.models.preprocessing import ImagePreprocessor
from jaxguard.models.processor import Processor

AROUND, UTTERANCE = "<fake_token_around_image>", "<end_of_utterance>"


@dataclass(frozen=True, kw_only=True)
class IdeficsProcessor(Processor):
    """Equivalent of `IdeficsProcessor` of `transformers`."""

    config: dict[str, Any]
    preprocessor: ImagePreprocessor

    def image(self, pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
        return self.preprocessor(pixels)

    def dialogue(self, tokenizer: Any) -> Dialogue:
        """Use the chat template or, if there is none, "User: ... Assistant:" as in the processor's documentation."""
        image_id, utterance = image_token(self.config, tokenizer), token_id(tokenizer, UTTERANCE)
        closing, picture = "" if utterance is None else UTTERANCE, f"{AROUND}{IMAGE}{AROUND}"
        text, without = (
            (template(tokenizer, image=bool(shown)) or f"User:{shown}{PLACE}{closing}\nAssistant:")
            for shown in (picture, "")
        )
        # Tokens after the end of a text attend to no image, so there is one turn without an end-of-utterance token.
        turn = None if utterance is None else next_turn(tokenizer, UTTERANCE) or f"\n{without}"
        end_id, end = (tokenizer.eos_token_id, tokenizer.eos_token) if utterance is None else (utterance, UTTERANCE)
        begin = tokenizer.bos_token
        text, without = (begin + opening.removeprefix(begin) for opening in (text, without))
        return Dialogue(
            text, without, turn, picture, image_id, 1, (), special=False, end_id=end_id, end=end, border=AROUND
        )


def read(config: dict[str, Any], preprocessor: dict[str, Any]) -> IdeficsProcessor:
    """Build the processor from the content of config.json and preprocessor_config.json."""
    side = (config.get("vision_config") or {}).get("image_size", 224)
    stated = {name: value for name, value in preprocessor.items() if name != "do_center_crop"}  # IDEFICS never crops
    if "image_size" in stated:
        stated["size"] = {"height": stated["image_size"], "width": stated["image_size"]}
    return IdeficsProcessor(
        image_shape=(side, side),
        image_tokens=1,
        config=config,
        preprocessor=ImagePreprocessor.read((side, side), stated, crops=False),
    )
