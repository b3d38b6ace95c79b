"""Reading of untrusted image files: allowed paths, sizes and formats, and decoding."""

from __future__ import annotations

import io
import os
import warnings
from contextlib import suppress
from pathlib import PurePosixPath

import numpy as np
from etils import epath
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

MOST_PIXELS = 64 * 2**20
MOST_BYTES = 64 * 2**20
"""Largest size of an image that is read."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that are decoded: none that run a program or carry instructions, such as EPS."""

warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit above is lower
Image.init()  # once here, because Pillow's lazy registration of formats is not thread-safe


class ImageFault(ValueError):
    """A problem of an image; the message does not name the image."""


class OutsideFault(ImageFault):
    """The path of an image leaves its data set."""


class MissingFault(ImageFault):
    """The image file does not exist."""


def contained(root: epath.Path, name: str) -> epath.Path:
    """Return the path under `root` of a name in a data set. No file is opened.

    Raises:
        OutsideFault: the name is a URL, absolute, has "..", or follows a link that leads out of `root`.
    """
    if "://" in name or name.startswith(("data:", "file:")):
        raise OutsideFault("is a URL; only files are read")
    parts = PurePosixPath(name).parts
    if not parts or "\0" in name:
        raise OutsideFault("names no file")
    if parts[0] == "/" or ".." in parts:
        raise OutsideFault("leads out of the folder")
    path = root / name
    if "://" not in os.fspath(root):  # buckets have no links
        base = os.path.realpath(root)
        if os.path.commonpath([base, os.path.realpath(path)]) != base:
            raise OutsideFault("is a link that leads out of the folder")
    return path


def read(path: epath.Path) -> bytes:
    """Read the bytes of an image file.

    Raises:
        MissingFault: the file does not exist.
        ImageFault: the file is empty, larger than `MOST_BYTES` or unreadable.
    """
    try:
        if not path.is_file():
            raise MissingFault("does not exist")
        size = path.stat().length
        if not 0 < size <= MOST_BYTES:
            raise ImageFault(f"has {size} bytes; between 1 and {MOST_BYTES} are read")
        return path.read_bytes()
    except OSError as error:
        raise ImageFault(f"cannot be read ({error.strerror or error})") from error


def decode(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Decode to RGB pixels: first frame, rotated as in EXIF, 16 bits reduced to 8, transparency ignored.

    Raises:
        ImageFault: not an image of `FORMATS`, damaged, or with more than `MOST_PIXELS` pixels.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ImageFault(f"has {image.width} x {image.height} pixels; at most {MOST_PIXELS} are read")
            image.load()
            _turn_upright(image)
            return np.asarray(_rgb(image))
    except ImageFault:
        raise
    except Exception as error:  # on hostile bytes, decoders raise exceptions of any type
        unknown = isinstance(error, UnidentifiedImageError)  # its text is the address of a buffer
        reason = f"none of {', '.join(FORMATS)}" if unknown else error
        raise ImageFault(f"is not a readable image ({reason})") from error


def _turn_upright(image: Image.Image) -> None:
    """Rotate in place as in EXIF: most images are upright and need no copy."""
    with suppress(Exception):  # a damaged EXIF block does not affect the pixels
        ImageOps.exif_transpose(image, in_place=True)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow needs this step for the palette's colours
    return image if image.mode == "RGB" else image.convert("RGB")
