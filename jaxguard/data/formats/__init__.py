"""Data sets in their original files, each read into a listing of rows before any image is opened."""

from __future__ import annotations

from types import ModuleType

from etils import epath

from jaxguard.data.formats import coco, flickr30k, llava, table, vqav2
from jaxguard.data.formats.listing import Listing
from jaxguard.data.problems import DUPLICATE, Problems
from jaxguard.errors import UserError

ORIGINALS: dict[str, ModuleType] = {
    "coco/caption": coco,
    "flickr30k/caption": flickr30k,
    "vqav2/vqa": vqav2,
    "llava/conversation": llava,
    "folder/rows": table,
}
"""NAME/TASK -> module that recognises and reads its files. The first one that recognises a folder is used."""

TASKS = {name.partition("/")[0]: name for name in ORIGINALS}
"""Short name -> NAME/TASK."""


def recognise(root: epath.Path) -> str:
    """Return the NAME/TASK of a folder's files.

    Raises:
        UserError: no format recognises them.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder")
    found = next((name for name, module in ORIGINALS.items() if module.recognises(root)), None)
    if found is None:
        raise UserError(f"{root} holds no data set of {', '.join(ORIGINALS)}; docs/data.md lists their files")
    return found


def listed(root: epath.Path, name: str, problems: Problems) -> Listing:
    """List the readable rows of a folder; faults of the others are added to `problems`.

    Raises:
        UserError: the folder holds no such data set.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder")
    if not ORIGINALS[name].recognises(root):
        raise UserError(f"{root} holds no files of {name}; docs/data.md lists them")
    listing = ORIGINALS[name].read(root, problems)
    return {split: rows for split, rows in listing.items() if rows}


def read(root: epath.Path, name: str) -> Listing:
    """List the rows of a folder. Duplicate ids are allowed and get a number.

    Raises:
        UserError: the folder holds no such data set, or has any other problem.
    """
    problems = Problems()
    listing = listed(root, name, problems)
    severe = {kind: count for kind, count in problems.counts.items() if kind != DUPLICATE}
    if severe:
        counted = ", ".join(f"{count} {kind}" for kind, count in severe.items())
        first = problems.first[next(iter(severe))][0]
        raise UserError(f"{root}: {counted} (first: {first}); `jaxguard data check {root}` lists them")
    if not listing:
        raise UserError(f"{root} holds no rows of {name}")
    return listing
