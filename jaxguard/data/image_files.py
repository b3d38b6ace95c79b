"""The images that the rows of an original data set name: files under its folder, or places inside its files."""

from __future__ import annotations

import hashlib
import os
from functools import cache, lru_cache, partial

from jaxguard.data import images
from jaxguard.data.formats import folder
from jaxguard.data.formats.columnar import Columns
from jaxguard.data.formats.inline import InlineImages
from jaxguard.data.formats.listing import Image
from jaxguard.data.formats.reading import Reading
from jaxguard.data.formats.webdataset import read_member

KEPT = 32
"""Number of images that are kept, because the rows of one image often follow one another."""


class ImageFiles:
    """Reads images by the names and places that rows give; safe to use from several threads.

    Args:
        reading: the data set.
        side: images are stored with a shorter side of at most this many pixels; None keeps their bytes.
    """

    def __init__(self, reading: Reading, side: int | None = None):
        self._root = reading.root
        self._images = reading.choices.images or reading.root
        self._allowed = reading.choices.allowed
        self._columns = Columns()
        self._reading = reading
        self._inline = cache(self._open_inline)
        self._side = side
        self._stored = lru_cache(KEPT)(self._store)

    def read(self, image: Image) -> bytes:
        """Return the bytes of an image. Raises `ImageFault`."""
        if isinstance(image, str):
            return images.read(images.contained(self._images, image, self._allowed))
        path = images.contained(self._root, image.file, self._allowed)
        suffix = os.path.splitext(image.file)[1].lower()
        if suffix == ".tar":
            return read_member(path, image.place)
        if suffix in (".parquet", ".arrow"):
            return self._columns.read(path, image.place)
        return self._inline(image.file).read(image.place)

    def _open_inline(self, name: str) -> InlineImages:
        return InlineImages(partial(folder.items, self._reading, name))

    def stored(self, image: Image) -> bytes:
        """Return the bytes with which an image is stored. Raises `ImageFault`."""
        return self._stored(image)

    def _store(self, image: Image) -> bytes:
        data = self.read(image)
        return data if self._side is None else images.shrink(data, self._side)


def digest(data: bytes) -> bytes:
    """Return eight bytes that tell images apart."""
    return hashlib.blake2b(data, digest_size=8).digest()
