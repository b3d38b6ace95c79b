"""How each family writes images, questions and where answers begin and end, from the checkpoint's files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxguard.errors import UserError

PLACE = "\ufffc"
"""Stands for the question in a rendered dialogue, so that each checkpoint's template is rendered once."""

ANSWERED = "\ufffd\ufffc\ufffd"
"""The same for an answer."""

IMAGE, AROUND, UTTERANCE = "<image>", "<fake_token_around_image>", "<end_of_utterance>"


@dataclass(frozen=True)
class Dialogue:
    """A family's way of writing.

    Attributes:
        text: everything before the first answer, with `PLACE` where the question goes, of one image.
        plain: the same of none.
        turn: what stands between an answer's end and the next answer, with `PLACE`; None takes one turn only.
        picture: how an image is written into a question; None cannot.
        image_id: the token that stands for an image.
        repeats: how often it stands in a row for each time it stands in `text`.
        lead: tokens before the text's own that stand for the image.
        special: whether the tokenizer adds its special tokens to `text`.
        end_id: the token behind an answer.
        end: how that token is written.
    """

    text: str
    plain: str
    turn: str | None
    picture: str | None
    image_id: int
    repeats: int
    lead: tuple[int, ...]
    special: bool
    end_id: int
    end: str

    def opening(self, question: str, images: int) -> str:
        """The text before the first answer. The question holds the places of its images, unless one leads."""
        if IMAGE in question or not images:
            return self.plain.replace(PLACE, self._pictured(question))
        return self.text.replace(PLACE, question)

    def following(self, question: str) -> str:
        """The text between an answer and the next one.

        Raises:
            UserError: the family knows no second turn.
        """
        if self.turn is None:
            raise UserError("the model's dialogue has a single turn")
        return self.end + self.turn.replace(PLACE, self._pictured(question))

    def _pictured(self, question: str) -> str:
        if IMAGE not in question:
            return question
        if self.picture is None:
            raise UserError(f"the model's dialogue puts its image first and knows no {IMAGE} inside a question")
        return question.replace(IMAGE, self.picture).replace(AROUND * 2, AROUND)


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
        named = (config.get("text_config") or {}).get("eos_token_id")
        end_id = named if isinstance(named, int) else tokenizer.eos_token_id
        lead = (image_id,) * config.get("num_query_tokens", 32)
        end = tokenizer.convert_ids_to_tokens(end_id)
        return Dialogue(text, text, None, None, image_id, 1, lead, special=True, end_id=end_id, end=end)
    if kind == "idefics":
        utterance = _id(tokenizer, UTTERANCE)
        closing, picture = "" if utterance is None else UTTERANCE, f"{AROUND}{IMAGE}{AROUND}"
        text, without = (
            (_template(tokenizer, image=bool(shown)) or f"User:{shown}{PLACE}{closing}\nAssistant:")
            for shown in (picture, "")
        )
        # Behind the end of a text no image is seen any more, so that without an end of utterance there is one turn.
        turn = None if utterance is None else _turn(tokenizer, UTTERANCE) or f"\n{without}"
        end_id, end = (tokenizer.eos_token_id, tokenizer.eos_token) if utterance is None else (utterance, UTTERANCE)
        begin = tokenizer.bos_token
        text, without = (begin + opening.removeprefix(begin) for opening in (text, without))
        return Dialogue(text, without, turn, picture, image_id, 1, (), special=False, end_id=end_id, end=end)
    template, plain = _template(tokenizer, image=True), _template(tokenizer, image=False)
    if template is None or plain is None:
        raise UserError("has no chat template; add chat_template.jinja")
    repeats = tokens_per_image(config) or 49  # of `CLIPVisionConfig`'s defaults
    end_id, end = tokenizer.eos_token_id, tokenizer.eos_token
    turn, picture = _turn(tokenizer, end), tokenizer.convert_ids_to_tokens(image_id)
    return Dialogue(template, plain, turn, picture, image_id, repeats, (), special=True, end_id=end_id, end=end)


def _template(tokenizer: Any, *, image: bool) -> str | None:
    if not tokenizer.chat_template:
        return None
    content = [{"type": "image"}] * image + [{"type": "text", "text": PLACE}]
    messages = [{"role": "user", "content": content}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def _turn(tokenizer: Any, end: str) -> str | None:
    """What a chat template writes between an answer's end and the next answer."""
    if not tokenizer.chat_template:
        return None
    said = [("user", PLACE), ("assistant", ANSWERED), ("user", PLACE)]
    messages = [{"role": role, "content": [{"type": "text", "text": words}]} for role, words in said]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return rendered.partition(ANSWERED)[2].removeprefix(end) or None


def _id(tokenizer: Any, token: str) -> int | None:
    """The id of a token, or None where the tokenizer does not know it."""
    found = tokenizer.convert_tokens_to_ids(token)
    return None if found is None or (found == tokenizer.unk_token_id and token != tokenizer.unk_token) else found
