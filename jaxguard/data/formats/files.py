"""Text files of a data set: JSON, JSON lines and plain lines. Everything read here is untrusted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal, TextIO, TypeVar

from jaxguard.data.formats.listing import NOUNS, noun
from jaxguard.data.formats.reading import Reading
from jaxguard.data.problems import FILES, MALFORMED

T = TypeVar("T")

CHUNK = 2**20
MOST_ITEM = 64 * 2**20
"""Largest number of characters of a line, or of an item of a list; a longer one is a fault."""

LONGEST_LITERAL = 12
"""More characters than any literal or escape of JSON that the end of what is read so far may cut."""

BLANKS = re.compile(r"\s*")


def read_json(reading: Reading, name: str, kind: type[T]) -> T | None:
    """Read the list or object in a JSON file; if it holds none, add a problem and return None."""
    try:
        with reading.open_text(name) as file:
            content = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        reading.unreadable(name, "JSON", error)
        return None
    if not isinstance(content, kind):
        reading.problems.add(FILES, name, f"holds {noun(content)}, not {NOUNS[kind]}")
        return None
    return content


def read_lines(reading: Reading, name: str) -> Iterator[tuple[str, str]]:
    """Yield (FILE:LINE, text) of the lines of a file that are not blank."""
    try:
        with reading.open_text(name) as file:
            for number, line in enumerate(iter(partial(file.readline, MOST_ITEM), ""), 1):
                if len(line) == MOST_ITEM:
                    raise ValueError(f"line {number} has {MOST_ITEM} characters or more")
                if line.strip():
                    yield f"{name}:{number}", line.rstrip("\n")
    except (OSError, ValueError) as error:
        reading.unreadable(name, "text", error)


def json_content(reading: Reading, name: str) -> Literal["list", "lines", "object"]:
    """Return what a JSON file holds by its start, whatever its suffix says: a list, JSON lines, or one object."""
    head = reading.head(name)
    if head.startswith("["):
        return "list"
    first, _, more = head.partition("\n")
    if not head.startswith("{"):
        return "list" if name.lower().endswith(".json") else "lines"
    if name.lower().endswith(".json") and not (_is_json(first) and more.strip()):
        return "object"
    return "lines"


def read_json_items(reading: Reading, name: str) -> Iterator[tuple[str, Any]]:
    """Yield (FILE[PLACE] or FILE:LINE, value) of a JSON list or of JSON lines, one at a time."""
    content = json_content(reading, name)
    if content == "lines":
        for where, line in read_lines(reading, name):
            try:
                yield where, json.loads(line)
            except (ValueError, RecursionError) as error:
                reading.problems.add(MALFORMED, where, f"is not readable as JSON ({error})")
        return
    if content == "object":
        reading.problems.add(FILES, name, "holds an object, not a list")
        return
    try:
        with reading.open_text(name) as file:
            for number, value in enumerate(_list_items(file)):
                yield f"{name}[{number}]", value
    except (OSError, ValueError, RecursionError) as error:
        reading.unreadable(name, "JSON", error)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _list_items(file: TextIO) -> Iterator[Any]:
    """Yield the items of a JSON list without ever holding all of it. Raises ValueError where it is none."""
    decode = json.JSONDecoder().raw_decode
    text, at, before, number = "", 0, 0, 0

    def fill() -> bool:
        nonlocal text, at, before
        if len(text) - at > MOST_ITEM:
            raise ValueError(f"item {number} has more than {MOST_ITEM} characters")
        more = file.read(max(CHUNK, len(text) - at))  # twice as much each time, so that long items cost no more
        text, at, before = text[at:] + more, 0, before + at
        return bool(more)

    def character() -> str:
        """Return the next character that is no blank; empty at the end of the file."""
        nonlocal at
        at = BLANKS.match(text, at).end()  # type: ignore[union-attr]  # matches anywhere
        while at == len(text) and fill():
            at = BLANKS.match(text, at).end()  # type: ignore[union-attr]
        return text[at : at + 1]

    def item() -> Any:
        nonlocal at
        while True:
            try:
                value, end = decode(text, at)
            except json.JSONDecodeError as error:
                place = before + error.pos
                cut = error.msg.startswith("Unterminated string") or error.pos > len(text) - LONGEST_LITERAL
                if not (cut and fill()):
                    raise ValueError(f"{error.msg} in item {number}, character {place}") from error
            else:
                if end < len(text) or not fill():  # a number at the end may go on
                    at = end
                    return value

    if character() != "[":
        raise ValueError("Expecting value: no list")
    at += 1
    if character() != "]":
        while True:
            character()
            yield item()
            number += 1
            if character() != ",":
                break
            at += 1
    if character() != "]":
        raise ValueError(f"Expecting ',' or ']' behind item {number - 1}, character {before + at}")
    at += 1
    if character():
        raise ValueError(f"Extra data behind the list, character {before + at}")
