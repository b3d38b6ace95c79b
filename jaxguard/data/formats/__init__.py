"""Data sets in the files that their authors distribute, each read into a listing of rows before any image is opened."""

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
"""NAME/TASK -> the module that recognises its folder and reads it; the first that does is it."""

TASKS = {name.partition("/")[0]: name for name in ORIGINALS}
"""Short names."""


def recognise(root: epath.Path) -> str:
    """The NAME/TASK of a folder's files.

    Raises:
        UserError: it holds none.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder")
    found = next((name for name, module in ORIGINALS.items() if module.recognises(root)), None)
    if found is None:
        raise UserError(f"{root} holds no data set of {', '.join(ORIGINALS)}; docs/data.md tells their files")
    return found


def listed(root: epath.Path, name: str, problems: Problems) -> Listing:
    """The rows of a folder that can be read; what is wrong with the others goes to `problems`.

    Raises:
        UserError: the folder holds no such data set.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder")
    if not ORIGINALS[name].recognises(root):
        raise UserError(f"{root} holds no files of {name}; docs/data.md tells which")
    listing = ORIGINALS[name].read(root, problems)
    return {split: rows for split, rows in listing.items() if rows}


def read(root: epath.Path, name: str) -> Listing:
    """The rows of a folder in which nothing but ids is wrong: a second row of an id goes by a number of its own.

    Raises:
        UserError: the folder holds no such data set, or something is wrong with it.
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
