"""LLaVA conversations: every `*.json` (one list) and `*.jsonl` (one object a line) at the top of a folder.

Each object has `conversations`, turns that alternate between "human" and "gpt"; `image`, one name or a list of them
(absent if it is text only); and `id`. Every image has one `<image>` in a human turn. The split is in the file's name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from etils import epath

from jaxguard.data.formats.listing import (
    Listed,
    Listing,
    field,
    identifier,
    numbered,
    parsed,
    plain_text,
    read_json,
    read_json_lines,
    split_of,
    text,
    unique,
)
from jaxguard.data.problems import EMPTY, MALFORMED, PLACEHOLDERS, Fault, Problems
from jaxguard.models.dialogue import IMAGE

HUMAN, MODEL = ("human", "user"), ("gpt", "assistant")


def recognises(root: epath.Path) -> bool:
    """Return True if the start of any file contains "conversations"."""
    for path in _files(root):
        with path.open("rb") as file:
            if b'"conversations"' in file.read(2**16):
                return True
    return False


def read(root: epath.Path, problems: Problems) -> Listing:
    """List the conversations of each split, in the order of the files."""
    listing: Listing = {}
    for path in _files(root):
        rows = parsed(_items(path, problems), _row, problems)
        listing.setdefault(split_of(path.stem), []).extend(rows)
    return {split: unique(rows, split, problems) for split, rows in listing.items()}


def _files(root: epath.Path) -> list[epath.Path]:
    return sorted(path for pattern in ("*.json", "*.jsonl") for path in root.glob(pattern))


def _items(path: epath.Path, problems: Problems) -> Iterator[tuple[str, Any]]:
    if path.suffix == ".jsonl":
        return read_json_lines(path, problems)
    return numbered(path.name, read_json(path, list, problems) or [])


def _row(item: Any) -> Listed:
    turns = field(item, "conversations", list)
    if turns and isinstance(turns[0], dict) and turns[0].get("from") in MODEL:
        turns = turns[1:]  # an answer without a question, which LLaVA's training skips too
    if not turns:
        raise Fault(EMPTY, "has no turns")
    for number, turn in enumerate(turns):
        speaker, wanted = field(turn, "from", str), (HUMAN, MODEL)[number % 2]
        if speaker not in wanted:
            raise Fault(MALFORMED, f"has {speaker!r} as the speaker of turn {number}, where {wanted[0]!r} is wanted")
    if len(turns) % 2:
        raise Fault(MALFORMED, "ends with a question that has no answer")
    images = _images(item)
    prompts = [text(turn, "value") for turn in turns[::2]]
    answers = tuple(plain_text(turn, "value") for turn in turns[1::2])
    found = sum(prompt.count(IMAGE) for prompt in prompts)
    if found != len(images):
        raise Fault(PLACEHOLDERS, f"has {found} {IMAGE} for {len(images)} images")
    if len(images) == 1:
        prompts = _leading(prompts)
    return Listed(identifier(item, "id"), images, tuple(prompts), answers, answers[:1], multi_turn=len(answers) > 1)


def _images(item: dict) -> tuple[str, ...]:
    if item.get("image") is None:
        return ()
    if isinstance(item["image"], str):
        return (text(item, "image"),)
    return tuple(text({"image": name}, "image") for name in field(item, "image", str, list))


def _leading(prompts: list[str]) -> list[str]:
    """Remove the only image's placeholder from an end of the first question, where the chat format puts it anyway."""
    first = prompts[0]
    if first.startswith(IMAGE) or first.endswith(IMAGE):
        first = first.removeprefix(IMAGE).removesuffix(IMAGE).strip()
        if not first:
            raise Fault(EMPTY, "has an empty question")
        return [first, *prompts[1:]]
    return prompts
