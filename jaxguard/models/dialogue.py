"""The dialogue format of a checkpoint: images, questions, and the beginning and end of answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxguard.errors import UserError

PLACE = "\ufffc"
"""Placeholder of the question in a rendered dialogue, so that each checkpoint's template is rendered once."""

ANSWERED = "\ufffd\ufffc\ufffd"
"""Placeholder of an answer."""

IMAGE = "<image>"
"""Placeholder of an image in the questions of data sets, for every checkpoint."""


@dataclass(frozen=True)
class Dialogue:
    """The dialogue format of one checkpoint; its family's processor builds it.

    Attributes:
        text: everything before the first answer of a dialogue about one image, with `PLACE` for the question.
        without_image: the same for a dialogue without images.
        turn: text between an answer's end and the next answer, with `PLACE`; None if there is one turn only.
        picture: text of an image inside a question; None if the family cannot place images there.
        image_id: id of the image token.
        repeats: number of times that each image token of `text` is repeated in a row.
        lead: image tokens put before the tokens of the text.
        special: True if the tokenizer adds its special tokens to `text`.
        end_id: id of the token after an answer.
        end: text of that token.
        border: text at both ends of `picture` that two adjacent images share.
    """

    text: str
    without_image: str
    turn: str | None
    picture: str | None
    image_id: int
    repeats: int
    lead: tuple[int, ...]
    special: bool
    end_id: int
    end: str
    border: str = ""

    def opening(self, question: str, images: int) -> str:
        """Return the text before the first answer; `text` places the image if the question has no `IMAGE`."""
        if IMAGE in question or not images:
            return self.without_image.replace(PLACE, self._pictured(question))
        return self.text.replace(PLACE, question)

    def following(self, question: str) -> str:
        """Return the text between an answer and the next one.

        Raises:
            UserError: the dialogue has a single turn.
        """
        if self.turn is None:
            raise UserError("the model's dialogue has a single turn")
        return self.end + self.turn.replace(PLACE, self._pictured(question))

    def _pictured(self, question: str) -> str:
        if IMAGE not in question:
            return question
        if self.picture is None:
            raise UserError(f"the model's dialogue puts its image first and cannot place {IMAGE} inside a question")
        pictured = question.replace(IMAGE, self.picture)
        return pictured.replace(self.border * 2, self.border) if self.border else pictured


def image_token(config: dict[str, Any], tokenizer: Any) -> int:
    """Return the id of the image token: from config.json, else from the tokenizer.

    Raises:
        UserError: neither names it.
    """
    named = config.get("image_token_index", config.get("image_token_id"))
    found = named if named is not None else token_id(tokenizer, IMAGE)
    if found is None:
        raise UserError(f"neither config.json nor the tokenizer names the token {IMAGE}; add image_token_index")
    return found


def template(tokenizer: Any, *, image: bool) -> str | None:
    """Render the chat template up to the first answer, with `PLACE`; None if there is no template."""
    if not tokenizer.chat_template:
        return None
    content = [{"type": "image"}] * image + [{"type": "text", "text": PLACE}]
    messages = [{"role": "user", "content": content}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def next_turn(tokenizer: Any, end: str) -> str | None:
    """Render the chat template between an answer's end and the next answer, with `PLACE`; None if that is empty."""
    if not tokenizer.chat_template:
        return None
    said = [("user", PLACE), ("assistant", ANSWERED), ("user", PLACE)]
    messages = [{"role": role, "content": [{"type": "text", "text": words}]} for role, words in said]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return rendered.partition(ANSWERED)[2].removeprefix(end) or None


def token_id(tokenizer: Any, token: str) -> int | None:
    """Return the id of a token, or None if the tokenizer has none."""
    found = tokenizer.convert_tokens_to_ids(token)
    return None if found is None or (found == tokenizer.unk_token_id and token != tokenizer.unk_token) else found
