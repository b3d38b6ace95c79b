"""One pass over a data set before it is used: all rows, all images, and what the user should know of both."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields

from rich.console import Console
from rich.progress import track

from jaxguard.data import formats, images
from jaxguard.data.formats.listing import Image, Listed, Listing
from jaxguard.data.formats.reading import Reading, folders_in
from jaxguard.data.image_files import ImageFiles, digest
from jaxguard.data.parallel import ordered
from jaxguard.data.problems import MISSING, OUTSIDE, UNREADABLE

MOST_SHOWN = 300
"""Number of characters of an image's name that are shown whole: it may be a URL with the image in it."""


@dataclass
class Survey:
    """What a data set holds.

    Attributes:
        format: NAME/TASK of its format; "built" for a data set that jaxguard wrote.
        listing: its readable rows, by split.
        digests: image -> digest of its bytes; without those that cannot be read.
        bad: images that cannot be read.
    """

    format: str
    listing: Listing
    digests: dict[Image, bytes] = field(default_factory=dict)
    bad: set[Image] = field(default_factory=set)

    def fingerprint(self, *more: object) -> str:
        """Digest of all rows and images, and of what else decides what is built from them."""
        content = hashlib.sha256(repr(more).encode())
        names = [field.name for field in fields(Listed)]
        for split, rows in self.listing.items():
            content.update(split.encode())
            for row in rows:  # without what is empty: a part that rows may have one day changes no digest of today
                values = [(name, getattr(row, name)) for name in names]
                content.update(repr([pair for pair in values if pair[1]]).encode())
        for found in self.digests.values():
            content.update(found)
        return content.hexdigest()


def survey(reading: Reading, name: str | None, threads: int, *, decode: bool = True) -> Survey:
    """Read all rows and images of a data set in its original files; problems are added to the reading.

    Args:
        reading: the data set.
        name: NAME/TASK of its format; None recognises it.
        threads: number of reading threads.
        decode: False reads the images' bytes alone.

    Raises:
        UserError: the folder holds no such data set.
    """
    name = name or formats.recognise(reading)
    found = Survey(name, formats.listed(reading, name))
    files = ImageFiles(reading)

    def look(image: Image) -> tuple[Image, bytes, tuple[str, str] | None]:
        try:
            data = files.read(image)
            if decode:
                images.decode(data)
        except images.ImageFault as fault:
            kinds = {images.OutsideFault: OUTSIDE, images.MissingFault: MISSING}
            return image, b"", (kinds.get(type(fault), UNREADABLE), str(fault))
        return image, digest(data), None

    named = dict.fromkeys(image for rows in found.listing.values() for row in rows for image in row.images)
    faults: dict[Image, tuple[str, str]] = {}
    for image, content, fault in shown(ordered(look, named, threads), len(named)):
        if fault is None:
            found.digests[image] = content
        else:
            faults[image] = fault
    found.bad = set(faults)
    users = _users(found.listing, found.bad)
    _note_folder(reading, [image for image, (kind, _) in faults.items() if kind == MISSING])
    for image, (kind, what) in faults.items():
        first, more = users[image]
        others = f" and {more} more" * (more > 0)
        reading.problems.add(kind, _shown_name(image), f"{what}; in row {first}{others}")
    return found


def _note_folder(reading: Reading, missing: list[Image]) -> None:
    """Note the folder at the top that has the first of the missing images."""
    name, root = (
        next((image for image in missing if isinstance(image, str)), None),
        reading.choices.images or reading.root,
    )
    for folder in folders_in(root) if name else ():
        if (root / folder / name).is_file():
            reading.notes.append(f"{folder}/ has the missing {name}: --images {root / folder} reads images there")
            return


def without_bad(listing: Listing, bad: set[Image]) -> Listing:
    """Return the rows that have none of these images."""
    kept = {split: [row for row in rows if bad.isdisjoint(row.images)] for split, rows in listing.items()}
    return {split: rows for split, rows in kept.items() if rows}


def shown(found: Iterable, total: int) -> Iterable:
    """Yield the items, with a bar on a terminal."""
    console = Console(stderr=True)
    quiet = not console.is_terminal
    return track(found, description="checking", total=total, transient=True, console=console, disable=quiet)


def _shown_name(image: Image) -> str:
    name = str(image)
    return name if len(name) <= MOST_SHOWN else f"{name[:40]}..."


def _users(listing: Listing, wanted: set[Image]) -> dict[Image, tuple[str, int]]:
    """Return the key of the first row that has an image, and the number of the others."""
    users: dict[Image, tuple[str, int]] = {}
    for rows in listing.values():
        for row in rows:
            for image in wanted.intersection(row.images) if wanted else ():
                first, more = users.get(image, (row.key, -1))
                users[image] = first, more + 1
    return users
