"""One row of a file of rows: turns of a conversation, or a question or caption with its answer.

Turns go by `from` and `value` (ShareGPT, LLaVA) or `role` and `content` (OpenAI, TRL); content is a text with an
`<image>` for each image, or a list of parts of type "text" and "image". A system turn, or a key `system`, is kept.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from jaxguard.data.formats.inline import PREFIX, InlineImage
from jaxguard.data.formats.listing import Image, Listed, Stored, field, identifier, noun, plain_text, text
from jaxguard.data.formats.parts import Parts, check_unread
from jaxguard.data.problems import EMPTY, IMAGELESS, MALFORMED, PLACEHOLDERS, Fault
from jaxguard.data.rows import CAPTION_PROMPT
from jaxguard.models.dialogue import IMAGE

HUMAN, MODEL, SYSTEM = ("human", "user"), ("gpt", "assistant", "model"), ("system", "developer")
CLASSES = {name: names for names in (HUMAN, MODEL, SYSTEM) for name in names}

MARKERS = re.compile(
    r"</?(?:img|video|audio|speech|image)\s*/?>|<imagehere>|<start_of_image>|\[img\]"
    r"|<\|?(?:image|video|audio|vision)s?(?:[ _-]?(?:pad|start|end|token|placeholder|soft_token|\d+))?\|?>",
    re.IGNORECASE,
)
"""What other tools write into a text in place of an image, a video or a sound; `<image>` itself is ours."""

Turn = tuple[str, str, tuple[Image, ...]]
"""Speaker, text, and the images among the parts of the text."""


def conversation(item: Mapping[str, Any], parts: Parts, key: str) -> Listed:
    """Return the row of an item with turns. Raises `Fault`."""
    return _from_turns(item, field(item, parts.keys["turns"], list), parts, key)


def pair(item: Mapping[str, Any], parts: Parts, key: str, *, text_rows: bool) -> Listed:
    """Return the row of an item with an answer, and maybe a question or the turns before it.

    Raises:
        Fault: the row is malformed, or has no image though `text_rows` is False.
    """
    keys = parts.keys
    if "answer" not in keys:
        raise Fault(MALFORMED, f"has no 'answer' (found: {', '.join(item) or 'nothing'})")
    prompt, answer = item.get(keys.get("prompt", "")), item[keys["answer"]]
    if isinstance(prompt, list) and isinstance(answer, list):  # TRL's prompt and completion
        return _from_turns(item, prompt + answer, parts, key)
    answers = _answers(item, keys["answer"])
    question = _question(item, parts)
    images = _images(item, parts)
    history = [_exchange(one) for one in field(item, keys["history"], list)] if "history" in keys else []
    if not images:
        check_unread(item, parts.unread)
        if not text_rows:
            raise Fault(IMAGELESS, f"has no image (found: {', '.join(item)}); --text-rows allows rows of text alone")
    references = answers
    if "references" in keys:
        references = tuple(
            plain_text({"references": one}, "references") for one in field(item, keys["references"], list)
        )
        if not references:
            raise Fault(EMPTY, "has no 'references'")
    if question is None:
        asked = [CAPTION_PROMPT] * len(answers)
    else:
        if len(answers) > 1:  # several people's answers to one question: the commonest is learnt
            answers = (Counter(answers).most_common(1)[0][0],)
        asked = [question]
    if history:
        asked, answers = [*(one for one, _ in history), *asked], (*(one for _, one in history), *answers)
        references = answers[:1]
    prompts = _placed(asked, images, implicit=True)
    return Listed(key, images, prompts, answers, references, bool(history), _system(item, parts, []))


def opens_with_model(turns: list) -> bool:
    """Return True if the first turn, but for a system turn, is the model's, which `conversation` leaves out."""
    speakers = [turn.get("role", turn.get("from")) for turn in turns[:2]]
    return speakers[0] in MODEL or (speakers[0] in SYSTEM and speakers[1] in MODEL)


def key_of(item: Mapping[str, Any], parts: Parts, where: str) -> str:
    """Return a row's id; without one, its place."""
    return identifier(item, parts.keys["id"]) if "id" in parts.keys else where


def _from_turns(item: Mapping[str, Any], turns: list, parts: Parts, key: str) -> Listed:
    said = [_turn(turn, number) for number, turn in enumerate(turns)]
    system = _system(item, parts, [text for speaker, text, _ in said[:1] if speaker in SYSTEM])
    if said and said[0][0] in SYSTEM:
        said = said[1:]
    if said and said[0][0] in MODEL:
        said = said[1:]  # an answer without a question, which LLaVA's training skips too
    if not said:
        raise Fault(EMPTY, "has no turns")
    skipped = len(turns) - len(said)
    for number, (speaker, _, _) in enumerate(said):
        wanted = (HUMAN, MODEL)[number % 2]
        if speaker not in wanted:
            name = wanted["role" in turns[number + skipped]]
            raise Fault(
                MALFORMED, f"has {speaker!r} as the speaker of turn {number + skipped}, where {name!r} is wanted"
            )
    if len(said) % 2:
        raise Fault(MALFORMED, "ends with a question that has no answer")
    prompts = [value for _, value, _ in said[::2]]
    answers = tuple(value for _, value, _ in said[1::2])
    for value in answers:
        _check_plain(value)
    images = _all_images(_images(item, parts), [image for _, _, within in said for image in within])
    if not images:
        check_unread(item, parts.unread)
    placed = _placed(prompts, images, implicit=False)
    return Listed(key, images, placed, answers, answers[:1], len(answers) > 1, system)


def _turn(turn: Any, number: int) -> Turn:
    by_role = isinstance(turn, dict) and "role" in turn
    speaker = field(turn, "role" if by_role else "from", str)
    name = "content" if by_role or "value" not in turn else "value"
    content = turn.get(name)
    if not isinstance(content, list):
        return speaker, text(turn, name), ()
    texts, images = [], []
    for part in content:
        kind = field(part, "type", str)
        if kind == "text":
            texts.append(field(part, "text", str))
        elif kind in ("image", "image_url", "input_image"):
            texts.append(IMAGE)
            named = next(
                (part[name] for name in ("image", "image_url", "path", "url") if part.get(name) is not None), None
            )
            images += [] if named is None else image_names(named, kind)
        else:
            raise Fault(PLACEHOLDERS, f"has a part of type {kind!r} in turn {number}; only text and images are read")
    return speaker, text({name: "".join(texts)}, name), tuple(images)


def image_names(value: Any, name: str) -> list[Image]:
    """Return the images of a value: a name, a stored image, an object with its bytes or name, or a list of these."""
    if value is None:
        return []
    if isinstance(value, Stored):
        return [value]
    if isinstance(value, str):
        if value.startswith(PREFIX):
            raise InlineImage
        return [text({name: value}, name)]
    if isinstance(value, list):
        if any(isinstance(one, list) for one in value):
            raise Fault(MALFORMED, f"has a list as {name!r}, where a text is wanted")
        return [image for one in value for image in image_names(one, name)]
    if isinstance(value, dict):
        for key in ("bytes", "path", "url", "file_name", "filename"):
            if value.get(key) is not None:
                return image_names(value[key], key)
        raise Fault(MALFORMED, f"has an object without 'bytes' or 'path' as {name!r}")
    raise Fault(MALFORMED, f"has {noun(value)} as {name!r}, where a text or a list is wanted")


def _images(item: Mapping[str, Any], parts: Parts) -> tuple[Image, ...]:
    key = parts.keys.get("image")
    return () if key is None else tuple(image_names(item[key], key))


def _all_images(beside: tuple[Image, ...], within: list[Image]) -> tuple[Image, ...]:
    """Join the images beside a conversation and those among its parts. Raises `Fault` if there are both."""
    if beside and within and beside != tuple(within):
        raise Fault(PLACEHOLDERS, f"names {len(within)} images in its turns and {len(beside)} beside them")
    return beside or tuple(within)


def _system(item: Mapping[str, Any], parts: Parts, turns: list[str]) -> str:
    """Return the system text of a turn or of a key; empty if there is none."""
    found = set(turns)
    for turn in turns:
        _check_plain(turn)
    key = parts.keys.get("system")
    if key is not None and item[key] != "":
        found.add(plain_text(item, key))
    if len(found) > 1:
        raise Fault(MALFORMED, "has two different system texts")
    return found.pop() if found else ""


def _answers(item: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Return the answers of a key: a text, a list of texts, or VQA's list of objects with `answer`."""
    value = item[key]
    if not isinstance(value, list):
        return (plain_text(item, key),)
    if not value:
        raise Fault(EMPTY, f"has no {key!r}")
    return tuple(plain_text(one if isinstance(one, dict) else {"answer": one}, "answer") for one in value)


def _question(item: Mapping[str, Any], parts: Parts) -> str | None:
    """Return the question and the input behind it (LLaMA-Factory); None in a caption row."""
    asked = [item[parts.keys[part]] for part in ("prompt", "input") if part in parts.keys]
    names = [parts.keys[part] for part in ("prompt", "input") if part in parts.keys]
    texts = [
        text({name: value}, name) for name, value in zip(names, asked, strict=True) if value != "" or name == names[0]
    ]
    return "\n".join(texts) if texts else None


def _exchange(said: Any) -> tuple[str, str]:
    """Return the question and answer of an earlier turn (ms-swift's history)."""
    if not isinstance(said, list) or len(said) != 2:
        raise Fault(MALFORMED, "has a history that is not a list of [question, answer]")
    return text({"history": said[0]}, "history"), plain_text({"history": said[1]}, "history")


def _check_plain(value: str) -> None:
    """Raise `Fault` if a turn other than a question has a placeholder."""
    if IMAGE in value:
        raise Fault(PLACEHOLDERS, f"has {IMAGE} as part of 'value'")


def _placed(prompts: Sequence[str], images: Sequence[Image], *, implicit: bool) -> tuple[str, ...]:
    """Return the prompts with a placeholder for each image, or none for a single one at an end of the first question.

    Args:
        prompts: all questions of a row.
        images: its images.
        implicit: True allows a single image without a placeholder.
    """
    for prompt in prompts:
        check_markers(prompt)
    found = sum(prompt.count(IMAGE) for prompt in prompts)
    if found != len(images) and not (implicit and found == 0 and len(images) == 1):
        way = "" if found else f"; write {IMAGE} where each image is"
        raise Fault(PLACEHOLDERS, f"has {found} {IMAGE} for {len(images)} images{way}")
    if len(images) != 1:
        return tuple(prompts)
    first = prompts[0]
    if first.startswith(IMAGE) or first.endswith(IMAGE):  # where the chat format puts it anyway
        first = first.removeprefix(IMAGE).removesuffix(IMAGE).strip()
        if not first:
            raise Fault(EMPTY, "has an empty question")
    return (first, *prompts[1:])


def check_markers(prompt: str) -> None:
    """Raise `Fault` if a question has what other tools write in place of an image, a video or a sound."""
    for found in MARKERS.findall(prompt) if "<" in prompt or "[" in prompt else ():
        if found != IMAGE:
            raise Fault(
                PLACEHOLDERS, f"has {found} in its text; name images in 'image', and write {IMAGE} where they are"
            )
