"""Reading of untrusted image files: allowed paths, sizes and formats, and decoding."""

from __future__ import annotations

import io
import os
import unicodedata
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import PurePosixPath

import numpy as np
from etils import epath
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

MOST_PIXELS = 64 * 2**20
MOST_BYTES = 64 * 2**20
"""Largest size of an image that is read."""

MOST_SIDE = 12_000
"""Largest number of pixels of a side: some models pad an image to a square, whose memory follows the longer side."""
MOST_RATIO = 200
"""Largest ratio of the sides: models resize the shorter side, and the longer one follows (Qwen-VL's limit)."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that are decoded: none that run a program or carry instructions, such as EPS."""

IMAGE_SUFFIXES = frozenset(
    suffix
    for kind in FORMATS
    for suffix in (f".{kind.lower()}", {"JPEG": ".jpg", "TIFF": ".tif", "PPM": ".pgm"}.get(kind))
    if suffix
)
"""Suffixes of the names of image files, in lower case."""

FOREIGN = {
    b"version https://git-lfs": "a Git LFS pointer (run `git lfs pull`)",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
}
"""Beginnings of files that are often found in place of an image."""

warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit above is lower
Image.init()  # once here, because Pillow's lazy registration of formats is not thread-safe


class ImageFault(ValueError):
    """A problem of an image; the message does not name the image."""


class OutsideFault(ImageFault):
    """The path of an image leaves its data set."""


class MissingFault(ImageFault):
    """The image file does not exist."""


def contained(root: epath.Path, name: str, allowed: Sequence[str] = ()) -> epath.Path:
    """Return the path under `root` of a name in a data set. No file is opened.

    Args:
        root: folder of the data set.
        name: path under it, as the data set says it.
        allowed: local folders that an absolute name or a link may lead into.

    Raises:
        OutsideFault: the name is a URL, has "..", or is absolute or a link that leads into no allowed folder; links may
            lead into `root` too.
    """
    if "://" in name or name.startswith(("data:", "file:")):
        raise OutsideFault("is a URL; only files are read, so save the images as files")
    parts = PurePosixPath(name).parts
    if not parts or "\0" in name:
        raise OutsideFault("names no file")
    if ".." in parts:
        raise OutsideFault("leads out of the folder")
    if parts[0] == "/" and not _inside(name, allowed):
        raise OutsideFault("is an absolute path; --allow-root DIR allows those into DIR")
    path = root / name
    local = "://" not in os.fspath(root)  # buckets have no links
    if local and parts[0] != "/" and not _inside(os.fspath(path), (os.fspath(root), *allowed)):
        raise OutsideFault("is a link that leads out of the folder; --allow-root DIR allows those into DIR")
    return path


def _inside(path: str, folders: Sequence[str]) -> bool:
    """Return True if a path, after all links, is in one of the folders."""
    real = os.path.realpath(path)
    return any(os.path.commonpath([base, real]) == base for base in map(os.path.realpath, folders))


def read(path: epath.Path) -> bytes:
    """Read the bytes of an image file.

    Raises:
        MissingFault: the file does not exist.
        ImageFault: the file is empty, larger than `MOST_BYTES` or unreadable.
    """
    try:
        if not path.is_file():
            raise MissingFault("does not exist" + _hint(path))
        size = path.stat().length
        if not 0 < size <= MOST_BYTES:
            raise ImageFault(f"has {size} bytes; between 1 and {MOST_BYTES} are read")
        return path.read_bytes()
    except OSError as error:
        raise ImageFault(f"cannot be read ({error.strerror or error})") from error


def _hint(path: epath.Path) -> str:
    """Say which file in the folder of a missing one has almost its name; empty if none has."""
    if "\\" in path.name:
        return " ('\\' does not separate folders; write '/')"
    folder = os.fspath(path.parent)
    if not os.path.isdir(folder):
        return _folder_hint(folder)
    wanted, similar = _folded(path.name), ""
    for name in _similar(folder).get(_folded(os.path.splitext(path.name)[0]), ()):
        if _folded(name) == wanted:
            return f" ({name!r} does, whose name differs in case or in the form of its Unicode characters)"
        similar = f" ({name!r} does)"
    return similar


@lru_cache(maxsize=16)
def _folder_hint(folder: str) -> str:
    """Say which folder has almost the name of a missing local one; empty if none has."""
    above, name = os.path.split(folder)
    with suppress(OSError), os.scandir(above) as entries:
        for entry in entries:
            if _folded(entry.name) == _folded(name):
                return f" (there is no folder {name!r}, but {entry.name!r})"
    return ""


@lru_cache(maxsize=16)
def _similar(folder: str) -> dict[str, tuple[str, ...]]:
    """Return the image files of a local folder by their folded names without suffixes."""
    found: dict[str, tuple[str, ...]] = {}
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            stem, suffix = os.path.splitext(entry.name)
            if suffix.lower() in IMAGE_SUFFIXES:
                found[_folded(stem)] = (*found.get(_folded(stem), ()), entry.name)
    return found


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def decode(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Decode to RGB pixels: first frame, rotated as in EXIF, 16 bits reduced to 8, transparency ignored.

    Raises:
        ImageFault: not an image of `FORMATS`, damaged, of pixels that have no range, or larger or thinner than is read.
    """
    for start, what in FOREIGN.items():
        if data[:256].lstrip().lower().startswith(start):
            raise ImageFault(f"is {what}, not an image")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image.width, image.height)
            _check_range(image)
            image.load()
            _turn_upright(image)
            return np.asarray(_rgb(image))
    except ImageFault:
        raise
    except Exception as error:  # on hostile bytes, decoders raise exceptions of any type
        unknown = isinstance(error, UnidentifiedImageError)  # its text is the address of a buffer
        reason = f"none of {', '.join(FORMATS)}" if unknown else error
        raise ImageFault(f"is not a readable image ({reason})") from error


def _check_size(width: int, height: int) -> None:
    """Raise `ImageFault` if an image would take too much memory, as it is or framed for a model."""
    short, long = sorted((width, height))
    if width * height > MOST_PIXELS:
        raise ImageFault(f"has {width} x {height} pixels; at most {MOST_PIXELS} are read")
    if long > MOST_RATIO * short:
        raise ImageFault(f"has {width} x {height} pixels; a side may be at most {MOST_RATIO} times the other")
    if long > MOST_SIDE:
        raise ImageFault(f"has {width} x {height} pixels; a side may have at most {MOST_SIDE}")


def _check_range(image: Image.Image) -> None:
    """Raise `ImageFault` if nothing says which numbers are black and white.

    Pillow gives mode I to PPM of 16 bits, whose range it knows, and to TIFF of 32 bits or of signed numbers.
    """
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
        kind = "floating-point" if image.mode == "F" else "32-bit or signed"
        raise ImageFault(f"has {kind} pixels, of no known range; save it with 8 bits a channel")


def _turn_upright(image: Image.Image) -> None:
    """Rotate in place as in EXIF: most images are upright and need no copy."""
    with suppress(Exception):  # a damaged EXIF block does not affect the pixels
        ImageOps.exif_transpose(image, in_place=True)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow needs this step for the palette's colours
    return image if image.mode == "RGB" else image.convert("RGB")


def shrink(data: bytes, side: int) -> bytes:
    """Return an image whose shorter side has at most `side` pixels, as a PNG; a smaller one keeps its bytes.

    Raises:
        ImageFault: as `decode`.
    """
    pixels = decode(data)
    short = min(pixels.shape[:2])
    if short <= side:
        return data
    size = [max(1, round(length * side / short)) for length in pixels.shape[1::-1]]
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((size[0], size[1]), Image.Resampling.LANCZOS).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
