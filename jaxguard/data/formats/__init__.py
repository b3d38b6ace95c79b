"""Data sets in their original files, each read into a listing of rows before any image is opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxguard.data.formats import coco, flickr30k, folder, vqav2
from jaxguard.data.formats.listing import Listing
from jaxguard.data.formats.reading import Reading
from jaxguard.errors import UserError


@dataclass(frozen=True)
class Format:
    """How the files of a data set are recognised and read."""

    recognises: Callable[[Reading], bool]
    read: Callable[[Reading], Listing]


ORIGINALS: dict[str, Format] = {
    "coco/caption": Format(coco.recognises, coco.read),
    "flickr30k/caption": Format(flickr30k.recognises, flickr30k.read),
    "vqav2/vqa": Format(vqav2.recognises, vqav2.read),
    "llava/conversation": Format(folder.recognises_conversations, folder.read),
    "messages/conversation": Format(folder.recognises_messages, folder.read),
    "folder/rows": Format(folder.recognises, folder.read),
}
"""NAME/TASK -> its format. The first one that recognises a folder is used."""

TASKS = {name.partition("/")[0]: name for name in ORIGINALS}
"""Short name -> NAME/TASK."""


def full_name(name: str) -> str:
    """Return the NAME/TASK of a format. Raises `UserError` if there is none."""
    full = TASKS.get(name, name)
    if full not in ORIGINALS:
        raise UserError(f"no data set {name!r}; choose one of {', '.join(ORIGINALS)}")
    return full


def recognise(reading: Reading) -> str:
    """Return the NAME/TASK of a folder's files.

    Raises:
        UserError: no format recognises them.
    """
    found = next((name for name, one in ORIGINALS.items() if one.recognises(reading)), None)
    if found is None:
        raise UserError(
            f"{reading.root} holds no data set of {', '.join(ORIGINALS)}; "
            f"docs/data.md lists their files ({_there(reading)})"
        )
    return found


def listed(reading: Reading, name: str) -> Listing:
    """List the readable rows of a folder; faults of the others are added to the problems.

    Raises:
        UserError: the folder holds no such data set.
    """
    if not ORIGINALS[name].recognises(reading) and not (
        ORIGINALS[name].read is folder.read and folder.recognises(reading)
    ):
        raise UserError(f"{reading.root} holds no files of {name}; docs/data.md lists them ({_there(reading)})")
    listing = ORIGINALS[name].read(reading)
    return {split: rows for split, rows in listing.items() if rows}


def _there(reading: Reading) -> str:
    """Say what is in a folder that holds no data set, and which of its folders does."""
    found = [f"{name}: {reading.why(name)}".removesuffix(": ") for name in reading.names]
    for inner in reading.folders_below():
        found += [f"{inner}/{name}: give {inner}" for name in reading.names_in(inner) if folder.is_rows(name)][:1]
    if not found:
        return f"found: no files, {len(reading.folders)} folders"
    more = [f"and {len(found) - 5} more"] * (len(found) > 5)
    return f"found: {', '.join([*found[:5], *more])}"
