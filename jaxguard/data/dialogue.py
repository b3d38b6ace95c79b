"""How each family writes an image, a question and where its answer begins and ends, from the checkpoint's files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxguard.errors import UserError

PLACE = "\ufffc"
"""Stands for the question in a rendered dialogue, so that each checkpoint's template is rendered once."""

IMAGE, AROUND, UTTERANCE = "<image>", "<fake_token_around_image>", "<end_of_utterance>"


@dataclass(frozen=True)
class Dialogue:
    """A family's way of writing.

    Attributes:
        text: everything before the answer, with `PLACE` where the question goes.
        image_id: the token that stands for an image.
        repeats: how often it stands in a row for each time it stands in `text`.
        lead: tokens before the text's own.
        special: whether the tokenizer adds its special tokens to `text`.
        end_id: the token behind an answer.
    """

    text: str
    image_id: int
    repeats: int
    lead: tuple[int, ...]
    special: bool
    end_id: int

    def opening(self, question: str) -> str:
        """The text before the answer to this question."""
        return self.text.replace(PLACE, question)


def tokens_per_image(config: dict[str, Any]) -> int | None:
    """How many tokens of a row an image takes; None where the config does not say."""
    if config.get("model_type") == "blip-2":
        return config.get("num_query_tokens", 32)
    if config.get("model_type") == "idefics":
        return 1
    vision = config.get("vision_config")
    side, patch = (vision.get(name) if isinstance(vision, dict) else None for name in ("image_size", "patch_size"))
    if not isinstance(side, int) or not isinstance(patch, int) or patch < 1:
        return None
    return (side // patch) ** 2 + (config.get("vision_feature_select_strategy", "default") == "full")


def patch_of_token(config: dict[str, Any]) -> int | None:
    """The side in pixels of the patch that each image token of a row stands for; None where tokens stand for more."""
    if config.get("model_type") in ("blip-2", "idefics"):
        return None
    return (config.get("vision_config") or {}).get("patch_size", 32)


def read_dialogue(config: dict[str, Any], tokenizer: Any) -> Dialogue:
    """The dialogue of a checkpoint, from its config.json and its tokenizer.

    A chat template decides where there is one. Without it, BLIP-2 asks "Question: ... Answer:" as its paper and
    model card do, and IDEFICS "User: ... Assistant:" as its processor's documentation does; LLaVA has no other way.

    Raises:
        UserError: the files do not say how.
    """
    kind = config.get("model_type")
    named = config.get("image_token_index", config.get("image_token_id"))
    image_id = named if named is not None else _id(tokenizer, IMAGE)
    if image_id is None:
        raise UserError(f"neither config.json nor the tokenizer names the token {IMAGE}; add image_token_index")
    if kind == "blip-2":
        text = _template(tokenizer, image=False) or f"Question: {PLACE} Answer:"
        end = (config.get("text_config") or {}).get("eos_token_id")
        end_id = end if isinstance(end, int) else tokenizer.eos_token_id
        lead = (image_id,) * config.get("num_query_tokens", 32)
        return Dialogue(text, image_id, 1, lead, special=True, end_id=end_id)
    if kind == "idefics":
        utterance = _id(tokenizer, UTTERANCE)
        closing = "" if utterance is None else UTTERANCE
        plain = f"User:{AROUND}{IMAGE}{AROUND}{PLACE}{closing}\nAssistant:"
        text = (_template(tokenizer, image=True) or plain).removeprefix(tokenizer.bos_token)
        end_id = tokenizer.eos_token_id if utterance is None else utterance
        return Dialogue(tokenizer.bos_token + text, image_id, 1, (), special=False, end_id=end_id)
    template = _template(tokenizer, image=True)
    if template is None:
        raise UserError("has no chat template; add chat_template.jinja")
    repeats = tokens_per_image(config) or 49  # of `CLIPVisionConfig`'s defaults
    return Dialogue(template, image_id, repeats, (), special=True, end_id=tokenizer.eos_token_id)


def _template(tokenizer: Any, *, image: bool) -> str | None:
    if not tokenizer.chat_template:
        return None
    content = [{"type": "image"}] * image + [{"type": "text", "text": PLACE}]
    messages = [{"role": "user", "content": content}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def _id(tokenizer: Any, token: str) -> int | None:
    """The id of a token, or None where the tokenizer does not know it."""
    found = tokenizer.convert_tokens_to_ids(token)
    return None if found is None or (found == tokenizer.unk_token_id and token != tokenizer.unk_token) else found
