"""Image files that nobody vouches for: where they may lie, how large they may be, and what their pixels are."""

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
"""An image with more is not read."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What is decoded: none of Pillow's formats that run a program or carry instructions, such as EPS."""

warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit above is lower
Image.init()  # here once, since Pillow's own registering of formats when one is missing is not safe among threads


class ImageFault(ValueError):
    """What is wrong with an image, without its name."""


class OutsideFault(ImageFault):
    """The name of an image leads out of its data set."""


class MissingFault(ImageFault):
    """There is no such file."""


def contained(root: epath.Path, name: str) -> epath.Path:
    """The path under `root` that a data set calls `name`. Nothing is opened.

    Raises:
        OutsideFault: the name is a URL, absolute, climbs up, or follows a link that leads out of `root`.
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
    """The bytes of an image file.

    Raises:
        MissingFault: there is no such file.
        ImageFault: its bytes are none, too many, or not to be had.
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
    """RGB pixels: the first frame, upright as EXIF says, sixteen bits cut to eight, transparency ignored.

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
    except Exception as error:  # decoders meet hostile bytes with whatever they stumble over
        unknown = isinstance(error, UnidentifiedImageError)  # whose own text is the address of a buffer
        reason = f"none of {', '.join(FORMATS)}" if unknown else error
        raise ImageFault(f"is not a readable image ({reason})") from error


def _turn_upright(image: Image.Image) -> None:
    """In place: most images stand upright, and need no copy."""
    with suppress(Exception):  # a damaged EXIF block does not spoil the picture
        ImageOps.exif_transpose(image, in_place=True)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow's way to the palette's colours
    return image if image.mode == "RGB" else image.convert("RGB")
