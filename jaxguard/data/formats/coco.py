"""COCO captions: Karpathy's `dataset_coco.json`, or the official `captions_SPLIT.json` of any year.

Karpathy's file gives each image's folder and split; Flickr30k's and Flickr8k's have the same structure. The official
files are in `annotations/` or at the top, their images in `train2017/`, `val2017/`, ... or `images/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from etils import epath

from jaxguard.data.formats.listing import (
    SPLITS,
    Listed,
    Listing,
    field,
    identifier,
    items,
    parsed,
    plain_text,
    read_json,
    split_of,
    text,
    unique,
)
from jaxguard.data.problems import DUPLICATE, EMPTY, MALFORMED, Fault, Problems
from jaxguard.data.rows import CAPTION_PROMPT

KARPATHY = "dataset_coco.json"


def recognises(root: epath.Path) -> bool:
    """Return True if a folder holds COCO captions."""
    return (root / KARPATHY).exists() or bool(_official(root))


def read(root: epath.Path, problems: Problems) -> Listing:
    """List the captioned images of each split, in the order of the files."""
    if (root / KARPATHY).exists():
        return karpathy(root, KARPATHY, ("", "images"), problems)
    listing: Listing = {}
    for path in _official(root):
        listing.setdefault(split_of(path.stem), []).extend(_captions(root, path, problems))
    return {split: unique(rows, split, problems) for split, rows in listing.items()}


def captioned(key: str, image: str, captions: list[str]) -> Listed:
    """Build a row of an image and its captions, all of them references. Raises `Fault` if there is no caption."""
    if not captions:
        raise Fault(EMPTY, "has no caption")
    return Listed(key, (image,), (CAPTION_PROMPT,) * len(captions), tuple(captions), tuple(captions))


def karpathy(root: epath.Path, name: str, folders: tuple[str, ...], problems: Problems) -> Listing:
    """Read a file of Karpathy's splits (arXiv 1412.2306).

    Args:
        root: folder of the data set.
        name: name of the file.
        folders: possible folders of images without a `filepath`.
        problems: collects the faults found.
    """
    content = read_json(root / name, dict, problems)
    folder = next((folder for folder in folders if folder and (root / folder).is_dir()), "")

    def parse(item: Any) -> tuple[str, Listed]:
        split = text(item, "split")
        if split not in SPLITS:
            raise Fault(MALFORMED, f"has the split {split!r}; one of {', '.join(SPLITS)} is wanted")
        file = text(item, "filename")
        captions = [plain_text(sentence, "raw") for sentence in field(item, "sentences", list)]
        place = text(item, "filepath") if item.get("filepath") else folder
        return SPLITS[split], captioned(file, f"{place}/{file}" if place else file, captions)

    listing: Listing = {}
    for split, row in parsed(items(content, "images", name, problems), parse, problems):
        listing.setdefault(split, []).append(row)
    return {split: unique(rows, split, problems) for split, rows in listing.items()}


def _official(root: epath.Path) -> list[epath.Path]:
    return sorted(path for place in (root / "annotations", root) for path in place.glob("captions_*.json"))


def _captions(root: epath.Path, path: epath.Path, problems: Problems) -> Iterator[Listed]:
    content = read_json(path, dict, problems)
    year = path.stem.removeprefix("captions_")
    folder = next((name for name in (year, "images") if (root / name).is_dir()), "")

    def image(item: Any) -> tuple[str, str]:
        return identifier(item, "id"), text(item, "file_name")

    files: dict[str, str] = {}
    for key, file in parsed(items(content, "images", path.name, problems), image, problems):
        if key in files:
            problems.add(DUPLICATE, path.name, f"has more than one image {key!r}")
        files[key] = file
    captions: dict[str, list[str]] = {key: [] for key in files}

    def annotation(item: Any) -> tuple[str, str]:
        key = identifier(item, "image_id")
        if key not in captions:
            raise Fault(MALFORMED, f"is about image {key!r}, which 'images' does not list")
        return key, plain_text(item, "caption")

    for key, caption in parsed(items(content, "annotations", path.name, problems), annotation, problems):
        captions[key].append(caption)

    def row(key: str) -> Listed:
        return captioned(files[key], f"{folder}/{files[key]}" if folder else files[key], captions[key])

    yield from parsed(((f"{path.name}: image {key!r}", key) for key in files), row, problems)
