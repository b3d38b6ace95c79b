"""Rows as listed by an original data set: texts, and images by name. Everything read here is untrusted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from jaxguard.data.problems import DUPLICATE, EMPTY, MALFORMED, PLACEHOLDERS, Fault, Problems
from jaxguard.models.dialogue import IMAGE

T = TypeVar("T")

MOST_CHARACTERS = 100_000
"""Largest number of characters of a text; longer ones are faults."""


INVALID = re.compile(r"[\ud800-\udfff\0]")
"""Characters that no text may have: lone surrogates and NUL."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An image inside a file that holds many.

    Attributes:
        file: name of that file under the data set's folder.
        place: where the image is in it, in the terms of the file's format.
    """

    file: str
    place: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.file}[{', '.join(map(str, self.place))}]"


Image = str | Stored
"""An image that a row names: a name under the data set's folder, or a place inside one of its files."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One row before its images are read.

    Attributes:
        key: the source's own name of the row, for display; unique in its split.
        images: its images, in the order of their placeholders; empty for a text-only row.
        prompts: as in `rows.Row`.
        answers: as in `rows.Row`.
        references: as in `rows.Row`.
        multi_turn: as in `rows.Row`.
        system: as in `rows.Row`.
    """

    key: str
    images: tuple[Image, ...]
    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    references: tuple[str, ...]
    multi_turn: bool = False
    system: str = ""


Listing = dict[str, list[Listed]]
"""Rows by split."""


def parsed(placed: Iterable[tuple[str, Any]], parse: Callable[[Any], T], problems: Problems) -> Iterator[T]:
    """Yield each parsed item; those for which `parse` raises `Fault` are added to the problems and skipped."""
    for where, item in placed:
        try:
            yield parse(item)
        except Fault as fault:
            problems.add(fault.kind, where, fault)


def numbered(name: str, values: Iterable[T]) -> Iterator[tuple[str, T]]:
    """Yield items with their positions in a list, for `parsed`."""
    return ((f"{name}[{number}]", value) for number, value in enumerate(values))


def items(content: dict | None, name: str, file: str, problems: Problems) -> Iterator[tuple[str, Any]]:
    """Yield the items of a list in a file's object, for `parsed`; if there is no such list, add a problem."""
    try:
        yield from numbered(f"{file}: {name}", [] if content is None else field(content, name, list))
    except Fault as fault:
        problems.add(fault.kind, file, fault)


def field(item: Any, name: str, *kinds: type) -> Any:
    """Return a field of a JSON object. Raises `Fault` if it is missing or not of one of `kinds`."""
    if not isinstance(item, dict):
        raise Fault(MALFORMED, f"is {noun(item)}, not an object")
    if name not in item:
        raise Fault(MALFORMED, f"has no {name!r}")
    value = item[name]
    if type(value) not in kinds:  # not isinstance: true is not a number
        wanted = " or ".join(NOUNS[kind] for kind in kinds)
        raise Fault(MALFORMED, f"has {noun(value)} as {name!r}, where {wanted} is wanted")
    return value


def text(item: Any, name: str) -> str:
    """Return a text field, stripped. Raises `Fault` if it is empty, too long or not valid Unicode."""
    value = field(item, name, str).strip()
    if not value:
        raise Fault(EMPTY, f"has an empty {name!r}")
    if len(value) > MOST_CHARACTERS:
        raise Fault(MALFORMED, f"has {len(value)} characters as {name!r}; at most {MOST_CHARACTERS} are read")
    if INVALID.search(value):
        raise Fault(MALFORMED, f"has invalid characters in {name!r}")
    return value


def plain_text(item: Any, name: str) -> str:
    """Return a text field, as `text`. Raises `Fault` also if it holds an image placeholder."""
    value = text(item, name)
    if IMAGE in value:
        raise Fault(PLACEHOLDERS, f"has {IMAGE} as part of {name!r}")
    return value


def identifier(item: Any, name: str) -> str:
    """Return a field that is an integer or a text, as a text. Raises `Fault` if it is neither."""
    return str(item[name]) if type(field(item, name, int, str)) is int else text(item, name)


def unique(rows: Iterable[Listed], name: str, problems: Problems) -> list[Listed]:
    """Return the rows; keys that occur again get a number as suffix, and are added to the problems."""
    counts: dict[str, int] = {}
    found = []
    for row in rows:
        count = counts[row.key] = counts.get(row.key, 0) + 1
        if count > 1:
            problems.add(DUPLICATE, name, f"has row {count} of the id {row.key!r}")
        found.append(row if count == 1 else replace(row, key=f"{row.key}#{count}"))
    return found


NOUNS = {dict: "an object", list: "a list", str: "a text", int: "a whole number", bool: "true or false"}


def noun(value: Any) -> str:
    return NOUNS.get(type(value), "null" if value is None else "a number")
