"""Parquet, and the Arrow files of `datasets`' save_to_disk: rows with the bytes of their images, through pyarrow."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import pyarrow
import pyarrow.parquet
from etils import epath

from jaxguard.data.formats.listing import Stored
from jaxguard.data.formats.reading import Reading
from jaxguard.data.images import MOST_BYTES, ImageFault, contained

ROWS = 64
"""Number of rows that are held at a time while a file is listed."""
MOST_GROUP = 2**30
"""Largest number of bytes of a Parquet row group, which is read whole."""
KEPT = 2
"""Number of row groups that are kept while their images are read."""


def read_columns(reading: Reading, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (FILE[ROW], row) of a Parquet or Arrow file; bytes are replaced by their `Stored` places."""
    number = 0
    try:
        path = contained(reading.root, name, reading.choices.allowed)
        for group, start, batch in _parquet(path) if _is_parquet(name) else _arrow(path):
            binary = [_holds_bytes(column.type) for column in batch.schema]
            for row, values in enumerate(batch.to_pylist(), start):
                yield (
                    f"{name}[{number}]",
                    {
                        key: _without_bytes(value, name, (group, row, column)) if binary[column] else value
                        for column, (key, value) in enumerate(values.items())
                    },
                )
                number += 1
    except (OSError, ValueError, ImageFault, pyarrow.ArrowException) as error:
        reading.unreadable(name, "Parquet" if _is_parquet(name) else "Arrow", error)


class Columns:
    """Bytes in Parquet and Arrow files by their places; safe to read from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int, int], Any] = OrderedDict()

    def read(self, path: epath.Path, place: tuple[int, ...]) -> bytes:
        """Return the bytes at a place that `read_columns` gave.

        Raises:
            ImageFault: the file has changed, or the image is empty or too large.
        """
        group, row, column, *inside = place
        try:
            value = self._column(path, group, column)[row].as_py()
            for step in inside:
                value = value[step] if isinstance(value, list) else list(value.values())[step]
        except (OSError, ValueError, LookupError, AttributeError, pyarrow.ArrowException) as error:
            raise ImageFault(f"cannot be read ({error})") from error
        if not isinstance(value, bytes) or not 0 < len(value) <= MOST_BYTES:
            raise ImageFault(f"is not of 1 to {MOST_BYTES} bytes")
        return value

    def _column(self, path: epath.Path, group: int, column: int) -> Any:
        key = (os.fspath(path), group, column)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = _column(path, group, column)
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            return self._kept[key]


def _column(path: epath.Path, group: int, column: int) -> Any:
    """Return one column of a row group of a Parquet file, or of a batch of an Arrow file."""
    if not _is_parquet(path.name):
        batch = _batches(path)[group]
        batch.validate(full=True)
        return batch.column(column)
    with path.open("rb") as file:
        content = pyarrow.parquet.ParquetFile(file)
        return content.read_row_group(group, columns=[content.schema_arrow.names[column]]).column(0)


def _parquet(path: epath.Path) -> Iterator[tuple[int, int, Any]]:
    """Yield (row group, number of its first row here, rows)."""
    with path.open("rb") as file:
        content = pyarrow.parquet.ParquetFile(file)
        for group in range(content.num_row_groups):
            size, start = content.metadata.row_group(group).total_byte_size, 0
            if size > MOST_GROUP:
                raise ValueError(
                    f"row group {group} has {size} bytes; write it with row groups of at most {MOST_GROUP}"
                )
            for batch in content.iter_batches(ROWS, row_groups=[group]):
                yield group, start, batch
                start += len(batch)


def _arrow(path: epath.Path) -> Iterator[tuple[int, int, Any]]:
    """Yield (batch, number of its first row here, rows)."""
    for group, batch in enumerate(_batches(path)):
        batch.validate(full=True)  # offsets in a damaged file could lead anywhere in memory
        for start in range(0, len(batch), ROWS):
            yield group, start, batch.slice(start, ROWS)


def _batches(path: epath.Path) -> list[Any]:
    """Map a local Arrow file of either form into memory."""
    if "://" in os.fspath(path):
        raise ValueError("Arrow files are read from local folders only; Parquet from anywhere")
    with pyarrow.memory_map(os.fspath(path)) as file:
        of_files = file.read(6) == b"ARROW1"
        file.seek(0)
        if of_files:
            content = pyarrow.ipc.open_file(file)
            return [content.get_batch(number) for number in range(content.num_record_batches)]
        return list(pyarrow.ipc.open_stream(file))


def _is_parquet(name: str) -> bool:
    return name.lower().endswith(".parquet")


def _holds_bytes(kind: Any) -> bool:
    """Return True if a column's type has bytes anywhere in it."""
    types = pyarrow.types
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
        return True
    if types.is_struct(kind) or types.is_list(kind) or types.is_large_list(kind):
        return any(_holds_bytes(kind.field(place).type) for place in range(kind.num_fields))
    return False


def _without_bytes(value: Any, name: str, place: tuple[int, ...]) -> Any:
    if isinstance(value, bytes):
        return Stored(name, place)
    if isinstance(value, list):
        return [_without_bytes(one, name, (*place, number)) for number, one in enumerate(value)]
    if isinstance(value, dict):
        return {key: _without_bytes(one, name, (*place, number)) for number, (key, one) in enumerate(value.items())}
    return value
