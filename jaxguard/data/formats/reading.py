"""What is read of a data set, how the user wants it read, and what was found on the way."""

from __future__ import annotations

import codecs
import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import BinaryIO, TextIO

from etils import epath

from jaxguard.data.images import IMAGE_SUFFIXES, ImageFault, contained
from jaxguard.data.problems import FILES, Problems

BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""First bytes of a text file -> its encoding; without any it is UTF-8. UTF-32 begins as UTF-16 does: it goes first."""

FOREIGN = {
    b"version https://git-lfs": "it is a Git LFS pointer, not the file: run `git lfs pull`",
    b"\x1f\x8b": "it is compressed by gzip: unpack it",
    b"PK\x03\x04": "it is a ZIP archive: unpack it",
}


UNREAD = {
    ".gz": "compressed: unpack it",
    ".bz2": "compressed: unpack it",
    ".zst": "compressed: unpack it",
    ".zip": "compressed: unpack it",
    ".tgz": "compressed: unpack it",
    ".xls": "a spreadsheet: save it as CSV",
    ".xlsx": "a spreadsheet: save it as CSV",
    ".pkl": "pickled: it could run any program",
    ".pickle": "pickled: it could run any program",
}
"""Suffix of files that are never read -> why, and what to do."""


LEVELS, MOST_FOLDERS = 3, 1000
"""How far down, and in how many folders, rows are looked for where the top has none."""


@dataclass(frozen=True)
class Choices:
    """How the user wants the files read.

    Attributes:
        columns: part of a row -> the key or column that holds it; the others go by their known names.
        text_rows: True allows captions and questions without an image.
        group: True joins the rows of one image and one question to a row with several references.
        images: folder under which rows name their images; None: the folder of the file that names them.
        allowed: folders of the user's own that links and absolute paths may lead into.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    text_rows: bool = False
    group: bool = False
    images: epath.Path | None = None
    allowed: tuple[str, ...] = ()


@dataclass
class Reading:
    """A data set that is being read.

    Attributes:
        root: its folder.
        only: name of the one file that is read; None: all files of its format.
        choices: how the user wants it read.
        problems: what is wrong.
        rows: file -> split -> number of its rows.
        unread: file -> key or column that is not read -> number of rows that have it.
        helpers: file without rows of its own -> what it gives to the rows of others.
        skipped: file -> why it holds no rows.
        notes: what the user should know though nothing is wrong.
    """

    root: epath.Path
    only: str | None = None
    choices: Choices = field(default_factory=Choices)
    problems: Problems = field(default_factory=Problems)
    rows: dict[str, Counter[str]] = field(default_factory=dict)
    unread: dict[str, Counter[str]] = field(default_factory=dict)
    helpers: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def local(self) -> bool:
        """False in a bucket, where listing a folder is slow and links do not exist."""
        return "://" not in os.fspath(self.root)

    @cached_property
    def names(self) -> list[str]:
        """Names of the files at the top that may be read, sorted; a folder is none, whatever its name."""
        names = self.names_in("")
        return names if self.only is None else [name for name in names if name == self.only]

    def names_in(self, folder: str) -> list[str]:
        """Return the names of the files in one folder under the root, without the folder, sorted; no hidden ones."""
        path = self.root / folder
        if self.local:
            try:
                with os.scandir(path) as entries:
                    return sorted(entry.name for entry in entries if entry.is_file() and not entry.name.startswith("."))
            except OSError:
                return []
        if not path.is_dir():
            return []
        return sorted(
            one.name for one in path.iterdir() if one.name[0] != "." and not is_image(one.name) and one.is_file()
        )

    @cached_property
    def folders(self) -> list[str]:
        """Names of the folders at the top, sorted; none if one file is read."""
        return [] if self.only is not None else folders_in(self.root)

    def folders_below(self) -> list[str]:
        """Names of the folders under the root, some levels down where it is local; none if one file is read."""
        below = list(self.folders)
        for folder in below if self.local else ():  # which grows on the way: level after level
            if folder.count("/") < LEVELS and len(below) < MOST_FOLDERS:
                below += [f"{folder}/{inner}" for inner in folders_in(self.root / folder)]
        return below

    def folder_of_images(self, names: Iterable[str]) -> str:
        """Return the first of these names that is a folder under which the data set names its images; empty if none."""
        root = self.choices.images or self.root
        return next((name for name in names if name and (root / name).is_dir()), "")

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Open a file under the root. Raises OSError or ValueError if it leads elsewhere, or is no file of its kind."""
        try:
            path = contained(self.root, name, self.choices.allowed)
        except ImageFault as fault:
            raise ValueError(f"it {fault}") from fault
        with path.open("rb") as file:
            head = file.read(32)
            for start, reason in FOREIGN.items():
                if head.startswith(start):
                    raise ValueError(reason)
            file.seek(0)
            yield file

    @contextmanager
    def open_text(self, name: str, newline: str | None = None) -> Iterator[TextIO]:
        """Open a text file under the root, in UTF-8 or in the encoding of its byte order mark; errors as `open`."""
        with self.open(name) as file:
            head = file.read(4)
            file.seek(0)
            encoding = next((encoding for mark, encoding in BOMS.items() if head.startswith(mark)), "utf-8")
            with io.TextIOWrapper(file, encoding, newline=newline) as text:
                yield text

    def head(self, name: str, length: int = 2**16) -> str:
        """Return the start of a text file, without the blanks before it; empty if it is none."""
        try:
            with self.open_text(name) as file:
                return file.read(length).lstrip()
        except (OSError, ValueError):
            return ""

    def unreadable(self, name: str, kind: str, error: Exception) -> None:
        """Add the problem that a file is not of the kind that its name says."""
        way = "; save it as UTF-8" if isinstance(error, UnicodeDecodeError) else ""
        self.problems.add(FILES, name, f"is not readable as {kind} ({error}{way})")

    def why(self, name: str) -> str:
        """Return why a file is not read; empty if nothing but its format says so."""
        return self.skipped.get(name, UNREAD.get(os.path.splitext(name)[1].lower(), ""))

    def leave(self, name: str, key: str, rows: int = 1) -> None:
        """Note that rows of a file have a key that is not read."""
        self.unread.setdefault(name, Counter())[key] += rows

    def took(self, name: str, split: str, rows: int = 1) -> None:
        """Note that rows of a file went to a split."""
        self.rows.setdefault(name, Counter())[split] += rows


def folders_in(root: epath.Path) -> list[str]:
    """Return the names of the folders in a folder, sorted."""
    if "://" not in os.fspath(root):
        with os.scandir(root) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
    return sorted(one.name for one in root.iterdir() if one.is_dir())


def is_image(name: str) -> bool:
    """Return True if a file's name is that of an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
