"""Flickr30k: Karpathy's `dataset_flickr30k.json`, or the original `results_20130124.token`.

The token file has no splits. They are read from `train.txt`, `val.txt` and `test.txt` in the same folder (one image a
line, as in Flickr30k Entities); images in none of these files are training rows.
"""

from __future__ import annotations

from etils import epath

from jaxguard.data.formats.coco import captioned, karpathy
from jaxguard.data.formats.listing import SPLITS, Listing, parsed, plain_text, read_lines
from jaxguard.data.problems import MALFORMED, Fault, Problems

KARPATHY = "dataset_flickr30k.json"
FOLDERS = ("flickr30k-images", "flickr30k_images", "images")


def recognises(root: epath.Path) -> bool:
    """Return True if a folder holds Flickr30k."""
    return (root / KARPATHY).exists() or bool(_token_file(root))


def read(root: epath.Path, problems: Problems) -> Listing:
    """List the captioned images of each split, in the order of the files."""
    if (root / KARPATHY).exists():
        return karpathy(root, KARPATHY, FOLDERS, problems)

    def parse(line: str) -> tuple[str, str]:
        name, tab, caption = line.partition("\t")
        image, hash_sign, number = name.rpartition("#")
        if not (tab and hash_sign and image and number.isdigit()):
            raise Fault(MALFORMED, "is not IMAGE#NUMBER, a tab and a caption")
        return image, plain_text({"caption": caption}, "caption")

    captions: dict[str, list[str]] = {}
    for path in _token_file(root):
        for image, caption in parsed(read_lines(path, problems), parse, problems):
            captions.setdefault(image, []).append(caption)
    folder = next((name for name in FOLDERS if (root / name).is_dir()), "")
    splits = _splits(root, problems)
    listing: Listing = {}
    for image, texts in captions.items():
        row = captioned(image, f"{folder}/{image}" if folder else image, texts)
        listing.setdefault(splits.get(image.removesuffix(".jpg"), "train"), []).append(row)
    return listing


def _token_file(root: epath.Path) -> list[epath.Path]:
    return sorted(root.glob("results*.token"))[:1]


def _splits(root: epath.Path, problems: Problems) -> dict[str, str]:
    """Return image name without its suffix -> split."""
    return {
        line.strip().removesuffix(".jpg"): SPLITS[name]
        for name in ("train", "val", "test")
        if (root / f"{name}.txt").exists()
        for _, line in read_lines(root / f"{name}.txt", problems)
    }
