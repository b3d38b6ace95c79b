"""Flickr30k: Karpathy's `dataset_flickr30k.json` (or `_flickr8k`), or the original `results_20130124.token`.

The token file has no splits. They are read from `train.txt`, `val.txt` and `test.txt` in the same folder (one image a
line, as in Flickr30k Entities); images in none of these files are training rows.
"""

from __future__ import annotations

import re

from jaxguard.data.formats.coco import captioned, karpathy
from jaxguard.data.formats.files import read_lines
from jaxguard.data.formats.listing import Listing, parsed, plain_text
from jaxguard.data.formats.reading import Reading
from jaxguard.data.formats.splits import SPLITS
from jaxguard.data.problems import MALFORMED, Fault

KARPATHY = ("dataset_flickr30k.json", "dataset_flickr8k.json")
TOKENS = re.compile(r"results.*\.token|Flickr8k\.token\.txt")
IMAGES_OF_SPLIT = re.compile(r"([a-z]+)\.txt|Flickr_8k\.([a-z]+)Images\.txt", re.IGNORECASE)
FOLDERS = ("flickr30k-images", "flickr30k_images", "Flicker8k_Dataset", "Flickr8k_Dataset", "Images", "images")


def recognises(reading: Reading) -> bool:
    """Return True if a folder holds Flickr30k or Karpathy's Flickr8k."""
    return any(name in reading.names for name in KARPATHY) or bool(_token_file(reading))


def read(reading: Reading) -> Listing:
    """List the captioned images of each split, in the order of the files."""
    for name in KARPATHY:
        if name in reading.names:
            return karpathy(reading, name, FOLDERS)
    problems = reading.problems

    def parse(line: str) -> tuple[str, str]:
        name, tab, caption = line.partition("\t")
        image, hash_sign, number = name.rpartition("#")
        if not (tab and hash_sign and image and number.isdigit()):
            raise Fault(MALFORMED, "is not IMAGE#NUMBER, a tab and a caption")
        return image, plain_text({"caption": caption}, "caption")

    captions: dict[str, list[str]] = {}
    (file,) = _token_file(reading)
    for image, caption in parsed(read_lines(reading, file), parse, problems):
        captions.setdefault(image, []).append(caption)
    folder = reading.folder_of_images(FOLDERS)
    splits = _splits(reading)
    listing: Listing = {}
    for image, texts in captions.items():
        row = captioned(image, f"{folder}/{image}" if folder else image, texts)
        split = splits.get(image.removesuffix(".jpg"), "train")
        reading.took(file, split)
        listing.setdefault(split, []).append(row)
    return listing


def _token_file(reading: Reading) -> list[str]:
    return [name for name in reading.names if TOKENS.fullmatch(name)][:1]


def _splits(reading: Reading) -> dict[str, str]:
    """Return image name without its suffix -> split."""
    found: dict[str, str] = {}
    for name in reading.names:
        listed = IMAGES_OF_SPLIT.fullmatch(name)
        split = SPLITS.get((listed[1] or listed[2]).lower()) if listed else None
        if split is not None:
            rows = {line.strip().removesuffix(".jpg"): split for _, line in read_lines(reading, name)}
            for image in found.keys() & rows.keys():
                if found[image] != rows[image]:
                    reading.problems.add(MALFORMED, name, f"gives {image!r} to a second split")
            reading.helpers[name] = "gives images their split"
            found |= rows
    return found
