"""Images in the rows themselves, as base64 in `data:` URLs (OpenAI), by the number of the row and of the image."""

from __future__ import annotations

import base64
import binascii
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from jaxguard.data.formats.listing import Stored
from jaxguard.data.images import MOST_BYTES, ImageFault

PREFIX = "data:image/"
KEPT = 64
"""Number of rows whose images are kept, because threads read them almost in order."""


class InlineImage(Exception):
    """A row has an image in itself; `placed` says where."""


def placed(value: Any, name: str, row: int) -> Any:
    """Return a row of a file with a `Stored` place for each image in it."""
    numbers = iter(range(len(_urls(value))))

    def replaced(value: Any) -> Any:
        if isinstance(value, str):
            return Stored(name, (row, next(numbers))) if value.startswith(PREFIX) else value
        if isinstance(value, list):
            return [replaced(one) for one in value]
        if isinstance(value, dict):
            return {key: replaced(one) for key, one in value.items()}
        return value

    return replaced(value)


class InlineImages:
    """Reads the images of one file's rows; safe to use from several threads.

    Args:
        items: opens the rows of the file from the first one on.
    """

    def __init__(self, items: Callable[[], Iterator[tuple[str, Any]]]):
        self._items = items
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, list[str]] = OrderedDict()
        self._rows: Iterator[tuple[int, Any]] = iter(())
        self._next = 0

    def read(self, place: tuple[int, ...]) -> bytes:
        """Return the bytes at a place that `placed` gave. Raises `ImageFault`."""
        row, number = place
        urls = self._urls(row)
        if number >= len(urls):
            raise ImageFault("is not there any more")
        kind, comma, content = urls[number].partition(",")
        if not comma or not kind.endswith(";base64"):
            raise ImageFault("is a data: URL that is not in base64")
        if len(content) > MOST_BYTES * 4 // 3:
            raise ImageFault(f"has more than {MOST_BYTES} bytes")
        try:
            return base64.b64decode(content, validate=True)
        except binascii.Error as error:
            raise ImageFault(f"is not in base64 ({error})") from error

    def _urls(self, row: int) -> list[str]:
        with self._lock:
            if row not in self._kept and row < self._next:  # from the start again: of the next split, or of the build
                self._next = 0
            if self._next == 0:
                self._rows = enumerate(item for _, item in self._items())
            while row not in self._kept:
                number, item = next(self._rows, (row, None))
                self._kept[number], self._next = _urls(item), number + 1
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            return self._kept[row]


def _urls(value: Any) -> list[str]:
    """All data: URLs of images in a row, in order."""
    if isinstance(value, str):
        return [value] if value.startswith(PREFIX) else []
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [url for one in inside for url in _urls(one)]
