"""Chat templates: dialogues exactly as a checkpoint's own Jinja template writes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxguard.errors import UserError
from jaxguard.models.dialogue import IMAGE, Dialogue, Turn, Written

QUESTION, ANSWER = "\ufffcasked\ufffc", "\ufffcsaid\ufffc"
"""Texts by which a template is tried when it is opened."""
MARKED = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
"""The tag by which a template marks what the assistant says."""

Span = tuple[int, int]
Messages = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class ChatTemplate(Dialogue):
    """A Jinja template, rendered for every dialogue, because it may treat each text as it likes.

    What is learnt is what the template marks (`{% generation %}`), or else what it writes behind the prompt that ends
    where the answer begins.

    Attributes:
        source: the template.
        names: what the template knows besides the messages: the tokenizer's special tokens.
        parts: True if a message's content is a list of parts, False if it is a string, in which an image is `picture`
            and a line break.
        places: True if the template writes the images; False if the family puts them before the text.
        closes: True if the template writes the end of an answer; otherwise the text of the end token is put behind it.
        begin: text before everything, unless the template writes it.
        single: True if the model can hold one turn only.
        end: text of the end token.
    """

    source: str
    names: dict[str, str]
    parts: bool
    places: bool
    closes: bool
    begin: str = ""
    single: bool = False
    end: str

    @property
    def marks(self) -> bool:
        """True if the template marks what the assistant says."""
        return bool(MARKED.search(self.source))

    def write(self, turns: Sequence[Turn], *, images: int, system: str = "") -> Written:
        if self.single and len(turns) > 1:
            raise UserError("the model's dialogue has a single turn")
        messages = self._messages(turns, images, system)
        prompt = turns[-1][1] is None
        text, marked = _render(self, messages, prompt=prompt)
        if system and system.strip() not in text:
            raise UserError("the chat template writes no system turn; leave it out, or use a template that has one")
        answered = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
        spans = marked if self.marks else [self._span(text, messages, place) for place in answered]
        if not self.closes:
            text, spans = self._close(text, spans, [answer for _, answer in turns if answer is not None], prompt)
        if not text.startswith(self.begin):
            text = self.begin + text
            spans = [(start + len(self.begin), end + len(self.begin)) for start, end in spans]
        return Written(text, tuple(spans), ended=self.closes)

    def _messages(self, turns: Sequence[Turn], images: int, system: str) -> Messages:
        first = images if self.places and not any(IMAGE in question for question, _ in turns) else 0
        messages = [{"role": "system", "content": self._content(system, 0)}] if system else []
        for number, (question, answer) in enumerate(turns):
            asked = self._content(self.pictured(question), 0 if number else first)
            messages.append({"role": "user", "content": asked})
            if answer is not None:
                messages.append({"role": "assistant", "content": self._content(answer, 0)})
        return messages

    def _content(self, text: str, images: int) -> Any:
        if not self.parts:
            return f"{self.picture}\n" * images + text
        return [{"type": "image"}] * images + [{"type": "text", "text": text}]

    def _span(self, text: str, messages: Messages, place: int) -> Span:
        """Return what the template writes of the answer `messages[place]`: behind its prompt, through its turn."""
        before, through = (_render(self, messages[:count], prompt=count == place)[0] for count in (place, place + 1))
        if not (text.startswith(before) and text.startswith(through)):
            raise UserError(
                "the chat template writes a turn otherwise once another follows, so its answers cannot be found; "
                "mark them in the template with {% generation %}"
            )
        return len(before), len(through)

    def _close(self, text: str, spans: list[Span], answers: list[str], prompt: bool) -> tuple[str, list[Span]]:
        """Put the end token's text behind each answer, and end the text behind the last; that end is left to follow."""
        if len(spans) != len(answers):
            raise UserError(f"the chat template marks {len(spans)} texts in {len(answers)} answers and ends none")
        whole, closed, done = "", list[Span](), 0
        for number, ((start, end), answer) in enumerate(zip(spans, answers, strict=True)):
            found = text.find(answer, start, end)
            stop = start + len(text[start:end].rstrip()) if found < 0 else found + len(answer)
            last = number == len(spans) - 1 and not prompt
            begin = len(whole) + start - done
            whole += text[done:stop] + ("" if last else self.end)
            closed.append((begin, len(whole)))
            done = stop
        return (whole + text[done:] if prompt else whole), closed


def open_template(
    source: str,
    tokenizer: Any,
    *,
    image_id: int,
    ends: tuple[int, ...],
    repeats: int = 1,
    lead: tuple[int, ...] = (),
    begin: str = "",
    picture: str | None = None,
    border: str = "",
) -> ChatTemplate:
    """Open a chat template, which is tried with one question and answer.

    Args:
        source: the template.
        tokenizer: the checkpoint's.
        image_id: id of the image token.
        ends: ids of the tokens that end an answer, as the configuration names them.
        repeats: number of times that the image token of the text is repeated in a row.
        lead: image tokens before the text; then the template writes no images.
        begin: text before everything.
        picture: text of an image; None is that of the image token.
        border: text at both ends of `picture` that two adjacent images share.

    Raises:
        UserError: the template fails, or does not write the question, the answer or the image.
    """
    image = tokenizer.convert_ids_to_tokens(image_id)
    known = {number: str(token) for number, token in tokenizer.added_tokens_decoder.items() if str(token).strip()}
    settings: dict[str, Any] = {
        "source": source,
        "names": {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)},
        "image_id": image_id,
        "picture": None if lead else picture or image,
        "border": border,
        "repeats": repeats,
        "lead": lead,
        "places": not lead,
        "begin": begin,
        "control": frozenset(token for token in known.values() if token in source),
    }

    def made(*, parts: bool, closes: bool = True, end_id: int = ends[0]) -> ChatTemplate:
        end, stops = tokenizer.convert_ids_to_tokens(end_id), tuple(dict.fromkeys((end_id, *ends)))
        return ChatTemplate(**settings, parts=parts, closes=closes, end_id=end_id, stops=stops, end=end)

    template, text = _tried(made(parts=True), made(parts=False))
    if not lead:
        with_image, _ = _render(template, template._messages([(QUESTION, ANSWER)], 1, ""), prompt=False)
        written = with_image.count(image) - text.count(image)
        if written != 1:
            raise UserError(
                f"the chat template writes {written or 'no'} {image} for an image; have it write the token that "
                f"config.json names as image_token_index ({image_id}) once"
            )
    tail = tokenizer.backend_tokenizer.encode(text.partition(ANSWER)[2], add_special_tokens=False).ids
    written_end = next((one for one in tail if one in ends or (one in known and one != image_id)), None)
    if written_end is None:
        end_id = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else ends[0]
        template = made(parts=template.parts, closes=False, end_id=end_id)
    else:
        template = made(parts=template.parts, end_id=written_end)
    template.write([(QUESTION, ANSWER)], images=0)
    return template


def _tried(*candidates: ChatTemplate) -> tuple[ChatTemplate, str]:
    """Return the first template that writes a question and an answer, and the dialogue of both.

    Raises:
        UserError: none does; with the first's failure.
    """
    failures = []
    for template in candidates:
        try:
            text, _ = _render(template, template._messages([(QUESTION, ANSWER)], 0, ""), prompt=False)
        except UserError as failure:
            failures.append(failure)
            continue
        if QUESTION in text and ANSWER in text and "'type'" not in text:
            return template, text
    if failures:
        raise failures[0]
    raise UserError("the chat template does not write the question and the answer as they are")


def _render(template: ChatTemplate, messages: Messages, *, prompt: bool) -> tuple[str, list[Span]]:
    """Return the text of messages, and the spans that the template marks; with `prompt`, up to the next answer.

    Raises:
        UserError: the template fails.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    names: dict[str, Any] = dict(template.names)
    rendered: Any  # typed as a text, but a list of texts and a list of lists of spans
    try:
        rendered = render_jinja_template(
            [messages],
            chat_template=template.source,
            return_assistant_tokens_mask=template.marks,
            add_generation_prompt=prompt,
            **names,
        )
    except Exception as error:  # a template may fail in any way
        reason = " ".join(str(error).split())
        raise UserError(f"the chat template (chat_template) fails: {type(error).__name__}: {reason}") from error
    texts, marked = rendered
    return texts[0], list(marked[0]) if marked else []
