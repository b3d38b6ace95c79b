"""IDEFICS's images and dialogues: one token marks the place of an image, which cross-attention reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxguard.models.chat_template import open_template
from jaxguard.models.dialogue import IMAGE, PLACE, Dialogue, FixedDialogue, named_image, token_id
from jaxguard.models.preprocessing import ImagePreprocessor, check_images
from jaxguard.models.processor import Processor
from jaxguard.models.values import whole

AROUND, UTTERANCE = "<fake_token_around_image>", "<end_of_utterance>"


@dataclass(frozen=True, kw_only=True)
class IdeficsProcessor(Processor):
    """Equivalent of `IdeficsProcessor` of `transformers`."""

    image_id: int | None
    preprocessor: ImagePreprocessor

    def image(self, pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
        return self.preprocessor(pixels)

    def dialogue(self, tokenizer: Any, *, template: str | None, ends: tuple[int, ...]) -> Dialogue:
        """Use the chat template or, if there is none, "User: ... Assistant:" as in the processor's documentation.

        Tokens after the end of a text attend to no image, so there is one turn without an end-of-utterance token.
        """
        image_id, utterance = named_image(self.image_id, tokenizer), token_id(tokenizer, UTTERANCE)
        begin, picture = tokenizer.bos_token or "", f"{AROUND}{IMAGE}{AROUND}"
        if template is not None:
            opened = open_template(
                template, tokenizer, image_id=image_id, ends=ends, begin=begin, picture=picture, border=AROUND
            )
            return replace(opened, single=opened.end_id == tokenizer.eos_token_id)
        closing = "" if utterance is None else UTTERANCE
        end_id = tokenizer.eos_token_id if utterance is None else utterance
        opening = f"User:{PLACE}{closing}\nAssistant:"
        return FixedDialogue(
            image_id=image_id,
            end_id=end_id,
            stops=tuple(dict.fromkeys((end_id, *ends))),
            picture=picture,
            border=AROUND,
            begin=begin,
            opening=opening,
            following=None if utterance is None else f"\n{opening}",
            end=tokenizer.convert_ids_to_tokens(end_id),
        )


def read(config: dict[str, Any], preprocessor: dict[str, Any]) -> IdeficsProcessor:
    """Build the processor from the content of config.json and preprocessor_config.json."""
    check_images(preprocessor, "IdeficsImageProcessor")
    side = whole(config.get("vision_config") or {}, "image_size", 224, "vision_config")
    stated = {name: value for name, value in preprocessor.items() if name != "do_center_crop"}  # IDEFICS never crops
    if "image_size" in stated:
        stated["size"] = {"height": stated["image_size"], "width": stated["image_size"]}
    return IdeficsProcessor(
        image_shape=(side, side),
        image_tokens=1,
        image_id=config.get("image_token_index"),
        vocabulary=whole(config, "vocab_size", 32000) + (config.get("additional_vocab_size") or 0),
        preprocessor=ImagePreprocessor.read((side, side), stated, crops=False),
    )
