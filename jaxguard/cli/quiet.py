"""Standard error of `--quiet`: warnings and errors alone."""

from __future__ import annotations

import io
from typing import TextIO

LOUD = ("warning:", "verdict:", "jaxguard:", "error:", "failed:")
"""Beginnings of the lines that are let through."""


class Quiet(io.TextIOBase):
    """Passes on the lines that begin with one of `LOUD`, and drops the others; not a terminal, so no progress bars."""

    def __init__(self, stream: TextIO):
        self._stream, self._line = stream, ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            if line.startswith(LOUD):
                self._stream.write(line + "\n")
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()
