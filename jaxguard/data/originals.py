"""Building of data sets from their original files: nothing is written before every row and image was read."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from jaxguard.data import formats
from jaxguard.data.builders import SOURCES, folder_of, unknown, write_records
from jaxguard.data.formats.listing import Image, Listed
from jaxguard.data.formats.reading import Reading
from jaxguard.data.image_files import ImageFiles
from jaxguard.data.images import ImageFault
from jaxguard.data.parallel import ordered
from jaxguard.data.problems import DUPLICATE, LEFT, OF_IMAGES, OF_ROWS, Problems
from jaxguard.data.shards import FINGERPRINT, Split, schema
from jaxguard.data.summary import report
from jaxguard.data.survey import Survey, survey, without_bad
from jaxguard.errors import UserError

LEFT_OUT = "left_out.jsonl"
"""File of a built data set that lists the rows and images that were left out, and why."""


@dataclass(frozen=True)
class Building:
    """How a data set is built.

    Attributes:
        threads: number of threads that read and decode images.
        skip_bad: True leaves faulty rows, and rows with faulty images, out.
        most_bad: largest share of the rows that may be left out.
        side: images are stored with a shorter side of at most this many pixels; None keeps their bytes.
    """

    threads: int = 4
    skip_bad: bool = False
    most_bad: float = 0.5
    side: int | None = None


def build_original(name: str, reading: Reading, root: Path, called: str | None, building: Building) -> Path:
    """Build a data set from its original files, unless it is built already. Returns its folder.

    Args:
        name: one of `formats.ORIGINALS`, or its first part.
        reading: the files.
        root: folder of built data sets.
        called: name of the built data set; None: `name`.
        building: how it is built.

    Raises:
        UserError: no such data set, faulty files, another data set of that name, or `root` cannot be written.
    """
    full = formats.TASKS.get(name, name)
    if full not in formats.ORIGINALS:
        if full in SOURCES:
            raise UserError(f"{name} is embedded: build it without --from")
        raise unknown(name, list(formats.ORIGINALS))
    called = _checked_name(called or full)
    folder = folder_of(called, root)
    found = survey(reading, full, building.threads, decode=building.skip_bad or not folder.is_dir())
    left_out = _left_out(found, reading, building)
    listing = without_bad(found.listing, found.bad)
    if not listing:
        raise UserError(f"{reading.root} holds no rows of {full}")
    fingerprint = found.fingerprint(building.side, left_out)
    if folder.is_dir():
        _check_same(folder, called, fingerprint)
        return folder
    print(report(str(reading.root), replace(found, listing=listing), reading), file=sys.stderr)
    if left_out:
        print(f"  left out: {_faulty(found, reading)} rows, listed in {folder / LEFT_OUT}", file=sys.stderr)
    numbered = reading.problems.counts.get(DUPLICATE, 0)
    if numbered:
        print(f"  numbered: {numbered} rows whose id another row has", file=sys.stderr)
    files = ImageFiles(reading, building.side)
    splits = {
        split: Split(len(rows), partial(_records, rows, files, building.threads)) for split, rows in listing.items()
    }
    extra = {LEFT_OUT: left_out} if left_out else {}
    write_records(called, splits, folder, schema(), extra, fingerprint)
    return folder


def _checked_name(name: str) -> str:
    """Return the name if it is a path below the root that configurations can use; raise UserError otherwise."""
    if name in SOURCES:
        raise UserError(f"{name} is the name of an embedded data set; choose another --name")
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)*", name):
        raise UserError(f"--name is {name!r}: must be words of letters, digits, '_', '.' and '-', with '/' between")
    return name


def _left_out(found: Survey, reading: Reading, building: Building) -> str:
    """Return the problems of the rows and images that are left out, as JSON lines.

    Raises:
        UserError: there are problems of other kinds, or more than may be left out.
    """
    root = reading.root
    severe = [problem for problem in reading.problems.found if problem.kind != DUPLICATE]
    if not severe:
        return ""
    of_files = [problem for problem in severe if problem.kind not in OF_ROWS | OF_IMAGES]
    told = Problems(of_files or severe)
    if of_files or not building.skip_bad:
        counted = ", ".join(f"{count} {kind}" for kind, count in told.counts.items())
        way = "" if of_files else "; --skip-bad leaves them out"
        raise UserError(f"{root}: {counted} (first: {told.found[0]}); `jaxguard data check {root}` lists them{way}")
    faulty = _faulty(found, reading)
    rows = faulty + sum(map(len, without_bad(found.listing, found.bad).values()))
    if faulty > building.most_bad * rows:
        raise UserError(
            f"{root}: {faulty} of {rows} rows are faulty (first: {severe[0]}), more than --most-bad "
            f"{building.most_bad}; `jaxguard data check {root}` lists them"
        )
    record = Problems(severe)
    for split, listed in found.listing.items():
        for row in listed:
            for image in row.images:
                if image in found.bad:
                    record.add(LEFT, f"{split}: {row.key}", f"has the image {image}")
    return record.json_lines()


def _faulty(found: Survey, reading: Reading) -> int:
    """Count the rows with faults, and those with faulty images."""
    of_rows = sum(problem.kind in OF_ROWS for problem in reading.problems.found)
    return of_rows + sum(not found.bad.isdisjoint(row.images) for rows in found.listing.values() for row in rows)


def _check_same(folder: Path, called: str, fingerprint: str) -> None:
    """Say that a data set is built already. Raises `UserError` if it was built from other rows or images."""
    path = folder / FINGERPRINT
    if path.is_file() and path.read_text(encoding="utf-8") != fingerprint:
        raise UserError(
            f"{called} is built already, from other rows, images or options than these; "
            f"give it another --name, or remove {folder}"
        )
    known = "from these files" if path.is_file() else "by an earlier version, which does not say from what"
    print(f"{called} is already built {known}; remove {folder} to build it again", file=sys.stderr)


def _records(rows: list[Listed], files: ImageFiles, threads: int, start: int) -> Iterator[dict]:
    def stored(image: Image) -> bytes:
        try:
            return files.stored(image)
        except ImageFault as fault:
            raise UserError(f"{image} {fault}, and could be read before: is it changing?") from fault

    def record(index: int) -> dict:
        row = rows[index]
        return {
            "id": index,
            "key": row.key,
            "images": [stored(image) for image in row.images],
            "prompts": row.prompts,
            "answers": row.answers,
            "references": row.references,
            "chained": row.multi_turn,
            "system": row.system,
        }

    return ordered(record, range(start, len(rows)), threads)
