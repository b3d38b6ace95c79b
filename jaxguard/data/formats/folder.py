"""Files of rows in a folder: JSON, JSON lines, CSV, TSV, Parquet, Arrow and WebDataset tars, in any mixture.

Read are the files at the top; in folders named after splits, and in `data/`, those that are a split's own: `metadata.*`
(imagefolder), Parquet, Arrow and tars. What a file holds decides how it is read, not its suffix alone.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

from jaxguard.data.formats.columnar import read_columns
from jaxguard.data.formats.conversation import conversation, key_of, opens_with_model, pair
from jaxguard.data.formats.files import json_content, read_json_items
from jaxguard.data.formats.inline import InlineImage, placed
from jaxguard.data.formats.listing import Listed, Listing, noun, text, unique
from jaxguard.data.formats.parts import Parts, check_columns, check_found, parts_of
from jaxguard.data.formats.reading import Reading
from jaxguard.data.formats.splits import SPLITS, known_split, named_splits, split_of
from jaxguard.data.formats.table import is_table, read_table
from jaxguard.data.formats.webdataset import read_tar
from jaxguard.data.problems import FILES, MALFORMED, REPEATED, Fault

Items = Callable[[Reading, str], Iterator[tuple[str, Any]]]

READERS: dict[str, Items] = {
    ".json": read_json_items,
    ".jsonl": read_json_items,
    ".ndjson": read_json_items,
    ".csv": read_table,
    ".tsv": read_table,
    ".txt": read_table,
    ".parquet": read_columns,
    ".arrow": read_columns,
    ".tar": read_tar,
}
"""Suffix, in lower case -> what reads such a file."""
WHOLE = {".parquet", ".arrow", ".tar"}
"""Suffixes of files that hold images too, and may lie in a folder of their split."""


def recognises(reading: Reading) -> bool:
    """Return True if a folder holds files of rows."""
    return bool(row_files(reading))


def recognises_conversations(reading: Reading) -> bool:
    """Return True if the start of any file of rows says "conversations"."""
    return _says(reading, "conversations")


def recognises_messages(reading: Reading) -> bool:
    """Return True if the start of any file of rows says "messages"."""
    return _says(reading, "messages")


def read(reading: Reading) -> Listing:
    """List the rows of each split, in the order of the files."""
    check_columns(reading.choices.columns)
    listing: Listing = {}
    rows = Rows(reading)
    for name in row_files(reading):
        try:
            rows.add(name, listing)
        except Fault as fault:
            reading.problems.add(FILES, name, fault)
    rows.check_repeated()
    check_found(reading, rows.seen)
    if reading.choices.group:
        listing = {split: _grouped(rows) for split, rows in listing.items()}
    return {split: unique(rows, split, reading.problems) for split, rows in listing.items()}


def row_files(reading: Reading) -> list[str]:
    """Return the names of the files of rows, sorted; why others are not read is noted."""
    found = [name for name in reading.names if _suffix(name) in READERS]
    for folder in reading.folders:
        if named_splits(folder) or folder == "data":
            found += [
                f"{folder}/{name}"
                for name in reading.names_in(folder)
                if _suffix(name) in WHOLE or (os.path.splitext(name)[0] == "metadata" and _suffix(name) in READERS)
            ]
    if reading.only is None:
        return [name for name in found if _holds_rows(reading, name)]
    return found


class Rows:
    """The rows of one file after another, as they are read.

    Attributes:
        seen: all keys and columns that any row has.
    """

    def __init__(self, reading: Reading):
        self._reading = reading
        self._owner: dict[int, str] = {}
        self._again: Counter[tuple[str, str]] = Counter()
        self._parts = lru_cache(lambda keys: parts_of(keys, reading.choices.columns))
        self.seen: set[str] = set()

    def add(self, name: str, listing: Listing) -> None:
        """Add the rows of a file to their splits. Raises `Fault` if its name speaks of several splits."""
        reading, folder = self._reading, name.rpartition("/")[0]
        split = split_of(os.path.splitext(os.path.basename(name))[0], folder)
        reading.rows.setdefault(name, Counter())
        problems = reading.problems
        unread: dict[Parts, int] = {}  # of this file, by dictionaries, which are faster than counters
        rows: dict[str, int] = {}
        opened = 0
        for number, (where, item) in enumerate(READERS[_suffix(name)](reading, name)):
            try:
                try:
                    found, row, parts = self._row(item, where, folder, split)
                except InlineImage:
                    found, row, parts = self._row(placed(item, name, number), where, folder, split)
            except Fault as fault:
                problems.add(fault.kind, where, fault)
                if isinstance(item, dict):
                    self.seen.update(item)
                continue
            listing.setdefault(found, []).append(row)
            self._compare(name, row)
            rows[found] = rows.get(found, 0) + 1
            opened += "turns" in parts.keys and opens_with_model(item[parts.keys["turns"]])
            unread[parts] = unread.get(parts, 0) + 1
        for parts, count in unread.items():
            self.seen.update(parts.keys.values(), parts.unread)
            for key in parts.unread:
                reading.leave(name, key, count)
        for found, count in rows.items():
            reading.took(name, found, count)
        if opened:
            reading.notes.append(f"not read: the model's turn before the first question of {opened} rows in {name}")

    def check_repeated(self) -> None:
        """Add a problem for each file whose rows are all in another one; note those that have some in common."""
        count = {name: sum(rows.values()) for name, rows in self._reading.rows.items()}
        for (first, second), shared in self._again.items():
            less, more = sorted((first, second), key=lambda name: count[name])
            if shared >= count[less]:
                what = f"has no row that {more} does not have: remove one of them, or name one file"
                self._reading.problems.add(REPEATED, less, what)
            else:
                self._reading.notes.append(f"{shared} rows of {second} are also in {first}")

    def _compare(self, name: str, row: Listed) -> None:
        """Count the rows that an earlier file has too."""
        content = hash((row.images, row.prompts, row.answers, row.system))
        owner = self._owner.get(content, name)
        self._owner[content] = name
        if owner != name:
            self._again[owner, name] += 1

    def _row(self, item: Any, where: str, folder: str, split: str | None) -> tuple[str, Listed, Parts]:
        if not isinstance(item, dict):
            raise Fault(MALFORMED, f"is {noun(item)}, not an object")
        item = {key: value for key, value in item.items() if value is not None}
        parts: Parts = self._parts(tuple(item))
        key = key_of(item, parts, where)
        if "turns" in parts.keys:
            row = conversation(item, parts, key)
        else:
            row = pair(item, parts, key, text_rows=self._reading.choices.text_rows)
        if "split" in parts.keys:
            split = known_split(text(item, parts.keys["split"]))
        elif split is None and "turns" not in parts.keys:
            split = _split_of_images(row)
        if folder and any(isinstance(image, str) for image in row.images):
            beside = tuple(f"{folder}/{image}" if isinstance(image, str) else image for image in row.images)
            row = replace(row, images=beside)
        return split or "train", row, parts


def _holds_rows(reading: Reading, name: str) -> bool:
    suffix = _suffix(name)
    if suffix == ".arrow" and os.path.basename(name).startswith("cache-"):
        reading.skipped[name] = "a cache of `datasets`"
        return False
    if suffix == ".txt" and not is_table(reading, name):
        reading.skipped[name] = "no table with an image and an answer"
        return False
    if suffix == ".json" and json_content(reading, name) == "object":
        head = reading.head(name)
        if not any(f'"{key}"' in head for key in ("conversations", "messages")):
            first = re.match(r'\{\s*"([^"]{1,50})"', head)
            begins = f" that begins with {first[1]!r}" if first else ""
            reading.skipped[name] = f"one object{begins}, not a list of rows"
            return False
    return True


def _says(reading: Reading, key: str) -> bool:
    return any(f'"{key}"' in reading.head(name) for name in row_files(reading) if _suffix(name) not in WHOLE)


def _split_of_images(row: Listed) -> str | None:
    """Return the split that is the folder of a row's first image, in a file that speaks of none."""
    first = row.images[0] if row.images else None
    folder = first.partition("/")[0] if isinstance(first, str) and "/" in first else ""
    return known_split(folder) if folder.lower() in SPLITS else None


def _grouped(rows: list[Listed]) -> list[Listed]:
    """Join the rows of the same images and the same single question to one, whose references are all their answers."""
    groups: dict[Any, list[Listed]] = {}
    for place, row in enumerate(rows):
        single = row.images and not row.multi_turn and len(set(row.prompts)) == 1
        groups.setdefault((row.images, row.prompts[0], row.system) if single else place, []).append(row)
    return [_joined(group) for group in groups.values()]


def _joined(rows: list[Listed]) -> Listed:
    prompts, answers, references = (
        tuple(text for row in rows for text in getattr(row, name)) for name in ("prompts", "answers", "references")
    )
    return replace(rows[0], prompts=prompts, answers=answers, references=references)


def items(reading: Reading, name: str) -> Iterator[tuple[str, Any]]:
    """Read the rows of a file again, from the first one on, without a word on what is wrong with them."""
    return READERS[_suffix(name)](Reading(reading.root, reading.only, reading.choices), name)


def is_rows(name: str) -> bool:
    """Return True if a file has the suffix of a file of rows; a text file is one only by its first line."""
    return _suffix(name) in READERS and _suffix(name) != ".txt"


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
