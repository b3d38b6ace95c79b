"""WebDataset tars: the members with one name before the first dot are one row, their images and texts its parts."""

from __future__ import annotations

import itertools
import json
import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from etils import epath

from jaxguard.data.formats.listing import MOST_CHARACTERS, Stored
from jaxguard.data.formats.reading import Reading, is_image
from jaxguard.data.images import MOST_BYTES, ImageFault
from jaxguard.data.problems import MALFORMED, Fault

TEXTS = {".txt": "caption", ".text": "caption", ".caption": "caption"}
"""Suffix of a member that is the row's caption -> the key that it stands for."""
MOST_JSON = 10 * MOST_CHARACTERS
"""Largest number of bytes of a member that is no image."""


def read_tar(reading: Reading, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (FILE[KEY], row) of a tar; images are `Stored` places, and a JSON member's keys are keys of the row."""
    try:
        with reading.open(name) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for key, members in itertools.groupby(
                (one for one in tar if one.isfile()), lambda one: _parts(one.name)[0]
            ):
                where = f"{name}[{key}]"
                try:
                    yield where, _row(name, key, list(members), file)
                except Fault as fault:
                    reading.problems.add(fault.kind, where, fault)
    except (OSError, ValueError, tarfile.TarError) as error:
        reading.unreadable(name, "a tar", error)


def read_member(path: epath.Path, place: tuple[int, ...]) -> bytes:
    """Return the bytes at a place that `read_tar` gave. Raises `ImageFault` if the file has changed."""
    start, size = place
    if not 0 < size <= MOST_BYTES:
        raise ImageFault(f"has {size} bytes; between 1 and {MOST_BYTES} are read")
    try:
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(size)
    except OSError as error:
        raise ImageFault(f"cannot be read ({error.strerror or error})") from error
    if len(data) < size:
        raise ImageFault("is cut off")
    return data


def _parts(name: str) -> tuple[str, str]:
    """Return a member's key and suffix: what comes before and after the first dot of its last name."""
    folder, _, last = name.rpartition("/")
    stem, dot, suffix = last.partition(".")
    return (f"{folder}/{stem}" if folder else stem), f"{dot}{suffix}".lower()


def _row(name: str, key: str, members: list[tarfile.TarInfo], file: BinaryIO) -> dict[str, Any]:
    images: list[Stored] = []
    texts: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for member in members:
        suffix = _parts(member.name)[1]
        if is_image(member.name):
            images.append(Stored(name, (member.offset_data, member.size)))
        elif suffix in TEXTS:
            texts[TEXTS[suffix]] = _text(file, member)
        elif suffix == ".json":
            try:
                content = json.loads(_text(file, member))
            except (ValueError, RecursionError) as error:
                raise Fault(
                    MALFORMED, f"has a member {member.name!r} that is not readable as JSON ({error})"
                ) from error
            if not isinstance(content, dict):
                raise Fault(MALFORMED, f"has a member {member.name!r} that is no object")
            values |= content
        else:
            values[suffix] = member.name
    differing = {f"json.{name}": values[name] for name in texts if values.get(name, texts[name]) != texts[name]}
    return {"id": key} | values | differing | texts | ({"image": images} if images else {})


def _text(file: BinaryIO, member: tarfile.TarInfo) -> str:
    if member.size > MOST_JSON:
        raise Fault(MALFORMED, f"has a member {member.name!r} of {member.size} bytes; at most {MOST_JSON} are read")
    file.seek(member.offset_data)  # the tar itself seeks before it reads on
    try:
        return file.read(member.size).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Fault(MALFORMED, f"has a member {member.name!r} that is no text ({error})") from error
