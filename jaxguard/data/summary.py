"""What the user should know of a data set that was read: what was read, what was not, and what looks odd."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

from jaxguard.data.formats.listing import Listed
from jaxguard.data.formats.reading import Reading, is_image
from jaxguard.data.formats.splits import SPLITS, named_splits
from jaxguard.data.problems import printable
from jaxguard.data.rows import CAPTION_PROMPT
from jaxguard.data.survey import Survey

COMMONEST = 5
"""Number of answers that are told."""
LISTED = 10
"""Number of files that are told by name."""


def report(root: str, found: Survey, reading: Reading | None = None) -> str:
    """Say what was read and what was not: files, splits, rows, images, keys and columns, and the commonest answers."""
    counts = [
        f"{len(rows)} {split} rows ({sum(bool(row.images) for row in rows)} with images)"
        for split, rows in found.listing.items()
    ]
    lines = [f"{root}: {', '.join(counts) or 'no rows'}", f"  format {found.format}"]
    if reading is not None:
        read = (*_files(reading), *_unread(reading), *_left_out(reading, found), *reading.notes)
        lines += [f"  {line}" for line in read]
    lines += [
        f"  {line}"
        for line in (*_systems(found), *_shared(found), *_elsewhere(found), *_ungrouped(found), *_commonest(found))
    ]
    return "\n".join(map(printable, lines))


def _files(reading: Reading) -> Iterator[str]:
    for file, rows in list(reading.rows.items())[:LISTED]:
        told = ", ".join(f"{count} to {split}" for split, count in rows.items()) or "no readable rows"
        if list(rows) == ["train"] and not named_splits(file):
            told += " (its name speaks of no split)"
        yield f"{file}: {told}"
    if len(reading.rows) > LISTED:
        yield f"and {len(reading.rows) - LISTED} more files with rows"
    for file, what in reading.helpers.items():
        yield f"{file}: {what}"


def _unread(reading: Reading) -> Iterator[str]:
    """Keys and columns that are not read: one line for those of the same files."""
    keys: Counter[str] = Counter()
    files: dict[str, str] = {}
    for file, unread in reading.unread.items():
        for key, count in unread.items():
            keys[key] += count
            files.setdefault(key, file)
    for key, count in list(keys.items())[:LISTED]:
        yield f"not read: {key!r} of {count} rows (first in {files[key]})"
    if len(keys) > LISTED:
        yield f"not read: {len(keys) - LISTED} more keys"


def _left_out(reading: Reading, found: Survey) -> Iterator[str]:
    """Files and images under the folder that no row comes from or names."""
    if reading.only is not None:
        return
    if not reading.local:
        left = {name: reading.why(name) for name in reading.names if name not in {*reading.rows, *reading.helpers}}
    else:
        root = os.path.abspath(reading.root)
        files = (image if isinstance(image, str) else image.file for image in (*found.digests, *found.bad))
        names = {os.path.relpath(os.path.join(root, file), root) for file in files}
        pictures, left = [], {}
        for name in _walk(os.fspath(reading.root)):
            if name in names or name in reading.rows or name in reading.helpers:
                continue
            if is_image(name):
                pictures.append(name)
            else:
                broken = not os.path.exists(os.path.join(os.fspath(reading.root), name))
                left[name] = "a broken link" if broken else reading.why(name)
        if pictures and reading.choices.images is None:
            yield f"not read: {len(pictures)} images that no readable row names (first: {pictures[0]})"
    for name, why in list(left.items())[:LISTED]:
        yield f"not read: {name}" + f" ({why})" * bool(why)
    if len(left) > LISTED:
        yield f"not read: {len(left) - LISTED} more files"


def _walk(root: str) -> Iterator[str]:
    """Yield the names of the files under a local folder, without hidden ones, and without following links."""
    for folder, inner, files in os.walk(root):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        below = os.path.relpath(folder, root)
        for name in sorted(files):
            if not name.startswith("."):
                yield name if below == "." else f"{below}/{name}"


def _systems(found: Survey) -> Iterator[str]:
    for split, rows in found.listing.items():
        count = sum(bool(row.system) for row in rows)
        if count:
            yield f"{count} {split} rows have a system text"


def _shared(found: Survey) -> Iterator[str]:
    """Rows whose image and question a row of another split has too."""
    if len(found.listing) < 2:
        return
    first: dict[int, str] = {}
    for split, rows in found.listing.items():
        shared: Counter[str] = Counter()
        example: dict[str, str] = {}
        for row in rows:
            for question in {hash(one) for one in _asked(found, row)}:
                owner = first.setdefault(question, split)
                if owner != split:
                    shared[owner] += 1
                    example.setdefault(owner, row.key)
                    break
        for owner, count in shared.items():
            yield (
                f"in two splits: {count} {split} rows have an image and a question of {owner} (first: {example[owner]})"
            )


def _asked(found: Survey, row: Listed) -> Iterator[tuple]:
    """The row's images, by their content, with each of its questions."""
    seen = tuple(found.digests.get(image, image) for image in row.images)
    return ((seen, prompt) for prompt in row.prompts if seen)


def _elsewhere(found: Survey) -> Iterator[str]:
    """Rows whose images are in a folder of another split."""
    for split, rows in found.listing.items():
        count: Counter[str] = Counter()
        for row in rows:
            for image in row.images:
                folders = image.split("/")[:-1] if isinstance(image, str) else []
                count.update({name for name in folders if SPLITS.get(name.lower(), split) != split})
        for folder, number in count.items():
            yield f"{number} {split} rows have images in a folder {folder!r}"


def _ungrouped(found: Survey) -> Iterator[str]:
    """Single captions of one image in rows of their own."""
    for split, rows in found.listing.items():
        single = Counter(row.images for row in rows if row.prompts == (CAPTION_PROMPT,))
        several = [count for count in single.values() if count > 1]
        if several:
            of = f"captions of {len(several)} images"
            yield f"{sum(several)} {split} rows are {of}; --group makes one row of each image"


def _commonest(found: Survey) -> Iterator[str]:
    """The answers that occur most often, each with the number of different images that it is given for."""
    count = Counter(answer for rows in found.listing.values() for row in rows for answer in row.answers)
    repeated = {answer: number for answer, number in count.most_common(COMMONEST) if number > 1}
    seen: dict[str, set] = {answer: set() for answer in repeated}
    for rows in found.listing.values():
        for row in rows:
            for answer in seen.keys() & set(row.answers):
                seen[answer].add(tuple(found.digests.get(image, image) for image in row.images))
    for answer, number in repeated.items():
        short = answer if len(answer) <= 60 else f"{answer[:57]}..."
        yield f"answer {short!r}: {number} times, for {len(seen[answer])} different images"
