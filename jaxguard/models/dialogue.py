"""How a checkpoint writes images, questions and where answers begin and end; its family's processor fills it in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxguard.errors import UserError

PLACE = "\ufffc"
"""Stands for the question in a rendered dialogue, so that each checkpoint's template is rendered once."""

ANSWERED = "\ufffd\ufffc\ufffd"
"""The same for an answer."""

IMAGE = "<image>"
"""Stands for an image in the questions of data sets, whichever token a checkpoint has for it."""


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
        border: what `picture` begins and ends with, where two images that touch share one.
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
    border: str = ""

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
        pictured = question.replace(IMAGE, self.picture)
        return pictured.replace(self.border * 2, self.border) if self.border else pictured


def image_token(config: dict[str, Any], tokenizer: Any) -> int:
    """The id of the token that stands for an image: as config.json names it, else as the tokenizer does.

    Raises:
        UserError: neither does.
    """
    named = config.get("image_token_index", config.get("image_token_id"))
    found = named if named is not None else token_id(tokenizer, IMAGE)
    if found is None:
        raise UserError(f"neither config.json nor the tokenizer names the token {IMAGE}; add image_token_index")
    return found


def template(tokenizer: Any, *, image: bool) -> str | None:
    """Everything before the first answer by the chat template, with `PLACE`; None where there is no template."""
    if not tokenizer.chat_template:
        return None
    content = [{"type": "image"}] * image + [{"type": "text", "text": PLACE}]
    messages = [{"role": "user", "content": content}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def next_turn(tokenizer: Any, end: str) -> str | None:
    """What a chat template writes between an answer's end and the next answer, with `PLACE`; None for nothing."""
    if not tokenizer.chat_template:
        return None
    said = [("user", PLACE), ("assistant", ANSWERED), ("user", PLACE)]
    messages = [{"role": role, "content": [{"type": "text", "text": words}]} for role, words in said]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return rendered.partition(ANSWERED)[2].removeprefix(end) or None


def token_id(tokenizer: Any, token: str) -> int | None:
    """The id of a token, or None where the tokenizer does not know it."""
    found = tokenizer.convert_tokens_to_ids(token)
    return None if found is None or (found == tokenizer.unk_token_id and token != tokenizer.unk_token) else found
