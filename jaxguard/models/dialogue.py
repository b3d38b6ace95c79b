"""The dialogue format of a checkpoint: turns to text, and which of the text is learnt."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxguard.errors import UserError

PLACE = "\ufffc"
"""Placeholder of the question in a format that is not a chat template."""

IMAGE = "<image>"
"""Placeholder of an image in the questions of data sets, for every checkpoint."""

Turn = tuple[str, str | None]
"""A question and its answer; None in the last turn of a prompt."""


@dataclass(frozen=True)
class Written:
    """A dialogue as text.

    Attributes:
        text: what is tokenized.
        answers: (start, end) in characters of what is learnt of `text`, one or more per answer, in order.
        ended: True if `text` holds the last answer's end; False if the end token is to follow.
    """

    text: str
    answers: tuple[tuple[int, int], ...]
    ended: bool


@dataclass(frozen=True, kw_only=True)
class Dialogue(abc.ABC):
    """The dialogue format of one checkpoint; its family's processor builds it.

    Attributes:
        image_id: id of the image token.
        end_id: id of the token that ends an answer.
        stops: ids of all tokens at which generation stops; `end_id` is the first.
        picture: text of an image inside a question; None if the family cannot place images there.
        border: text at both ends of `picture` that two adjacent images share.
        repeats: number of times that each image token of the text is repeated in a row.
        lead: image tokens put before the tokens of the text.
        control: texts that data must not hold verbatim besides the tokenizer's special tokens.
    """

    image_id: int
    end_id: int
    stops: tuple[int, ...]
    picture: str | None = None
    border: str = ""
    repeats: int = 1
    lead: tuple[int, ...] = ()
    control: frozenset[str] = field(default=frozenset())

    @abc.abstractmethod
    def write(self, turns: Sequence[Turn], *, images: int, system: str = "") -> Written:
        """Write a dialogue; a last turn without an answer ends where the answer begins.

        Args:
            turns: questions, which may hold `IMAGE`, and answers.
            images: number of images; they come first if no question holds `IMAGE`.
            system: text of a system turn; empty: none.

        Raises:
            UserError: the format cannot hold it.
        """

    def pictured(self, question: str) -> str:
        """Return the question with `picture` in place of each `IMAGE`.

        Raises:
            UserError: the family cannot place images inside a question.
        """
        if IMAGE not in question:
            return question
        if self.picture is None:
            raise UserError(f"the model's dialogue puts its image first and cannot place {IMAGE} inside a question")
        text = question.replace(IMAGE, self.picture)
        return text.replace(self.border * 2, self.border) if self.border else text


@dataclass(frozen=True, kw_only=True)
class FixedDialogue(Dialogue):
    """A format written in a paper or a model card, of checkpoints without a chat template.

    Attributes:
        begin: text before everything.
        opening: text before the first answer, with `PLACE` for the question.
        following: text between an answer's end and the next answer, with `PLACE`; None if there is one turn only.
        end: text of the end token.
    """

    begin: str = ""
    opening: str
    following: str | None = None
    end: str

    def write(self, turns: Sequence[Turn], *, images: int, system: str = "") -> Written:
        if system:
            raise UserError("the model's dialogue has no place for a system turn; add a chat template that has one")
        text, answers = self.begin, list[tuple[int, int]]()
        first = self.picture if self.picture and images and not any(IMAGE in question for question, _ in turns) else ""
        for number, (question, answer) in enumerate(turns):
            pattern = self.following if number else self.opening
            if pattern is None:
                raise UserError("the model's dialogue has a single turn")
            if number:
                text += self.end
                answers[-1] = (answers[-1][0], len(text))
            text += pattern.replace(PLACE, (first if not number else "") + self.pictured(question))
            if answer is not None:
                answers.append((len(text), len(text) + 1 + len(answer)))
                text += f" {answer}"
        return Written(text, tuple(answers), ended=False)


def named_image(image_id: int | None, tokenizer: Any) -> int:
    """Return the id of the image token, which the tokenizer must know.

    Raises:
        UserError: no file names it, or the tokenizer does not know it.
    """
    if image_id is None:
        raise UserError(f"neither config.json nor the tokenizer names the token {IMAGE}; add image_token_index")
    if tokenizer.convert_ids_to_tokens(image_id) is None:
        raise UserError(f"the tokenizer knows no token {image_id}, which config.json names as image_token_index")
    return image_id


def end_tokens(config: dict[str, Any], generation: dict[str, Any], tokenizer: Any) -> tuple[int, ...]:
    """Return the ids of the tokens that end an answer: of generation_config.json, else config.json, else the tokenizer.

    Raises:
        UserError: none of them names one.
    """
    text = config.get("text_config") or {}
    for named in (generation.get("eos_token_id"), config.get("eos_token_id"), text.get("eos_token_id")):
        if named is not None:
            ids = named if isinstance(named, list) else [named]
            if not ids or not all(type(one) is int and one >= 0 for one in ids):
                raise UserError(f"eos_token_id {named!r} is no token id; give a number or a list of numbers")
            return tuple(ids)
    if tokenizer.eos_token_id is None:
        raise UserError("no file names an end-of-sequence token; add eos_token_id to generation_config.json")
    return (tokenizer.eos_token_id,)


def token_id(tokenizer: Any, token: str) -> int | None:
    """Return the id of a token, or None if the tokenizer has none."""
    found = tokenizer.convert_tokens_to_ids(token)
    return None if found is None or (found == tokenizer.unk_token_id and token != tokenizer.unk_token) else found
