"""Which key or column of a row holds which part of it: by the names that people use, or as the user says."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jaxguard.data.formats.listing import Stored
from jaxguard.data.formats.reading import Reading, is_image
from jaxguard.data.problems import FILES, IMAGELESS, Fault
from jaxguard.errors import UserError

PARTS: dict[str, tuple[str, ...]] = {
    "turns": ("conversations", "messages", "conversation"),
    "image": (
        *("image", "images", "filename", "imagepath", "imagefile", "imagename", "imagefilename", "imagepaths"),
        *("filepath", "path", "img", "imgs", "imgpath", "picture", "photo"),
    ),
    "prompt": ("prompt", "question", "query", "instruction"),
    "input": ("input",),
    "answer": ("answer", "caption", "text", "response", "output", "completion", "answers", "captions", "comment"),
    "references": ("references",),
    "history": ("history",),
    "system": ("system", "systemprompt"),
    "split": ("split",),
    "id": ("id",),
}
"""Part of a row -> its known names, the first of them that a row has; case and all but letters and digits aside."""

OF_TURNS = frozenset({"turns", "image", "system", "split", "id"})
"""Parts of a row that has turns."""

MEDIA = re.compile(
    r"data:(image|video|audio)/|\S.*\.(jpe?g|png|gif|bmp|webp|tiff?|ppm|mp4|avi|mov|mkv|webm|wav|mp3)$", re.IGNORECASE
)
"""A value that names an image, a video or a sound."""


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts of rows that have the same keys.

    Attributes:
        keys: part -> key.
        unread: keys that hold no part.
    """

    keys: Mapping[str, str]
    unread: tuple[str, ...]


def parts_of(found: Iterable[str], columns: Mapping[str, str]) -> Parts:
    """Return which of the found keys holds which part; the user's `columns` go first."""
    found = tuple(found)
    keys = {part: column for part, column in columns.items() if column in found}
    free = {_squeezed(name): name for name in reversed(found) if name not in keys.values()}
    for part, names in PARTS.items():
        known = next((free[name] for name in names if name in free), None)
        if known is not None and part not in columns:
            keys[part] = known
    if "turns" in keys:
        keys = {part: key for part, key in keys.items() if part in OF_TURNS}
    return Parts(keys, tuple(name for name in found if name not in keys.values()))


def check_columns(columns: Mapping[str, str]) -> None:
    """Raise `UserError` if a part that the user names is not known."""
    for part in columns:
        if part not in PARTS:
            close = difflib.get_close_matches(part, PARTS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"one of {', '.join(PARTS)} is wanted"
            raise UserError(f"--columns: a row has no part {part!r}; {hint}")


def check_unread(item: Mapping[str, Any], unread: Iterable[str]) -> None:
    """Raise `Fault` if a row without an image has an image, a video or a sound in a key that is not read."""
    for key in unread:
        value = item[key]
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, Stored):
            raise Fault(IMAGELESS, f"has an image in {key!r}, which is not read; --columns image={key} reads it")
        if isinstance(first, str) and MEDIA.match(first[:1000]):
            way = f"; --columns image={key} reads it" if is_image(first) else ""
            raise Fault(IMAGELESS, f"has no image; {key!r} is {first[:80]!r}, which is not read{way}")


def check_found(reading: Reading, seen: Iterable[str]) -> None:
    """Add a problem for each column that the user names and no row has."""
    seen = sorted(set(seen))
    for part, column in reading.choices.columns.items():
        if column not in seen:
            what = f"has no column {column!r}, which --columns gives {part} (found: {', '.join(seen) or 'none'})"
            reading.problems.add(FILES, str(reading.root), what)


def _squeezed(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).lower()
