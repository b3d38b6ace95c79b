"""COCO captions: Karpathy's `dataset_coco.json`, or the official `captions_SPLIT.json` of any year.

Karpathy's file gives each image's folder and split; Flickr30k's and Flickr8k's have the same structure. The official
files are in `annotations/` or at the top, their images in `train2017/`, `val2017/`, ... or `images/`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from jaxguard.data.formats.files import read_json
from jaxguard.data.formats.listing import (
    Listed,
    Listing,
    field,
    identifier,
    items,
    parsed,
    plain_text,
    text,
    unique,
)
from jaxguard.data.formats.reading import Reading
from jaxguard.data.formats.splits import known_split, split_of
from jaxguard.data.problems import DUPLICATE, EMPTY, FILES, MALFORMED, Fault
from jaxguard.data.rows import CAPTION_PROMPT

KARPATHY = "dataset_coco.json"
OFFICIAL = re.compile(r"(annotations/)?captions_[^/]*\.json", re.IGNORECASE)


def recognises(reading: Reading) -> bool:
    """Return True if a folder holds COCO captions."""
    return KARPATHY in reading.names or bool(_official(reading))


def read(reading: Reading) -> Listing:
    """List the captioned images of each split, in the order of the files."""
    if KARPATHY in reading.names:
        return karpathy(reading, KARPATHY, ("", "images"))
    listing: Listing = {}
    for name in _official(reading):
        try:
            split = split_of(name) or "train"
        except Fault as fault:
            reading.problems.add(FILES, name, fault)
            continue
        rows = list(_captions(reading, name))
        reading.took(name, split, len(rows))
        listing.setdefault(split, []).extend(rows)
    return {split: unique(rows, split, reading.problems) for split, rows in listing.items()}


def captioned(key: str, image: str, captions: list[str]) -> Listed:
    """Build a row of an image and its captions, all of them references. Raises `Fault` if there is no caption."""
    if not captions:
        raise Fault(EMPTY, "has no caption")
    return Listed(key, (image,), (CAPTION_PROMPT,) * len(captions), tuple(captions), tuple(captions))


def karpathy(reading: Reading, name: str, folders: tuple[str, ...]) -> Listing:
    """Read a file of Karpathy's splits (arXiv 1412.2306).

    Args:
        reading: the data set.
        name: name of the file.
        folders: possible folders of images without a `filepath`.
    """
    problems = reading.problems
    content = read_json(reading, name, dict)
    folder = reading.folder_of_images(folders)

    def parse(item: Any) -> tuple[str, Listed]:
        split = known_split(text(item, "split"))
        file = text(item, "filename")
        captions = [plain_text(sentence, "raw") for sentence in field(item, "sentences", list)]
        place = text(item, "filepath") if item.get("filepath") else folder
        return split, captioned(file, f"{place}/{file}" if place else file, captions)

    listing: Listing = {}
    for split, row in parsed(items(content, "images", name, problems), parse, problems):
        reading.took(name, split)
        listing.setdefault(split, []).append(row)
    return {split: unique(rows, split, problems) for split, rows in listing.items()}


def _official(reading: Reading) -> list[str]:
    names = reading.names
    if "annotations" in reading.folders:
        names = [*(f"annotations/{name}" for name in reading.names_in("annotations")), *names]
    return sorted(name for name in names if OFFICIAL.fullmatch(name) and not reading.head(name).startswith("["))


def _captions(reading: Reading, name: str) -> Iterator[Listed]:
    problems = reading.problems
    content, file_name = read_json(reading, name, dict), name.rpartition("/")[2]
    folder = reading.folder_of_images((file_name[len("captions_") : -len(".json")], "images"))

    def image(item: Any) -> tuple[str, str]:
        return identifier(item, "id"), text(item, "file_name")

    files: dict[str, str] = {}
    for key, file in parsed(items(content, "images", file_name, problems), image, problems):
        if key in files:
            problems.add(DUPLICATE, file_name, f"has more than one image {key!r}")
        files[key] = file
    captions: dict[str, list[str]] = {key: [] for key in files}

    def annotation(item: Any) -> tuple[str, str]:
        key = identifier(item, "image_id")
        if key not in captions:
            raise Fault(MALFORMED, f"is about image {key!r}, which 'images' does not list")
        return key, plain_text(item, "caption")

    for key, caption in parsed(items(content, "annotations", file_name, problems), annotation, problems):
        captions[key].append(caption)

    def row(key: str) -> Listed:
        return captioned(files[key], f"{folder}/{files[key]}" if folder else files[key], captions[key])

    yield from parsed(((f"{file_name}: image {key!r}", key) for key in files), row, problems)
