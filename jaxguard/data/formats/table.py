"""Tables: CSV and TSV, one row a line, with the names of the columns in the first one."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from functools import partial

from jaxguard.data.formats.files import MOST_ITEM
from jaxguard.data.formats.parts import parts_of
from jaxguard.data.formats.reading import Reading, is_image
from jaxguard.data.problems import FILES, MALFORMED

DELIMITERS = (",", "\t", ";", "|")


def is_table(reading: Reading, name: str) -> bool:
    """Return True if the first line of a text file names an image and an answer, as in Kaggle's captions.txt."""
    header = reading.head(name).partition("\n")[0]
    keys = parts_of(_columns(header, _delimiter(header, {})), {}).keys
    return "image" in keys and "answer" in keys


def read_table(reading: Reading, name: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (FILE:LINE, the line's cells that are not empty, by column)."""
    at = 1
    try:
        with reading.open_text(name, newline="") as lines:
            first = lines.readline(MOST_ITEM)
            delimiter = _delimiter(first, reading.choices.columns)
            columns = _columns(first, delimiter)
            twice = sorted({column for column in columns if column and columns.count(column) > 1})
            if twice:
                raise ValueError(f"two columns are named {', '.join(twice)}")
            pictures = parts_of(columns, reading.choices.columns).keys.get("image")
            if any(map(is_image, columns)):
                raise ValueError(f"its first line is a row, not the names of the columns: {first.strip()[:100]}")
            image = None if pictures is None else columns.index(pictures)
            limited = iter(partial(lines.readline, MOST_ITEM), "")
            table = csv.reader(limited, strict=True, delimiter=delimiter, skipinitialspace=True)
            for cells in table:
                where = f"{name}:{at + 1}"
                swallowed = _swallowed(cells, len(columns), image, delimiter)
                if swallowed:
                    reading.problems.add(FILES, where, f"has a quote that swallows {swallowed} rows behind it")
                at = 1 + table.line_num
                if len(cells) > len(columns):
                    reading.problems.add(MALFORMED, where, "has more cells than the header")
                elif any(cells):
                    named = zip(columns, map(str.strip, cells), strict=False)
                    yield where, {column: cell for column, cell in named if cell}
    except csv.Error as error:
        reading.unreadable(name, "CSV", ValueError(f"behind line {at}: {error}"))
    except (OSError, ValueError) as error:
        reading.unreadable(name, "CSV", error)


def _delimiter(header: str, columns: Mapping[str, str]) -> str:
    """Return the delimiter by which a header has most of a row's parts; a comma where all have the same."""
    return max(DELIMITERS, key=lambda one: len(parts_of(_columns(header, one), columns).keys))


def _columns(header: str, delimiter: str) -> list[str]:
    try:
        return [name.strip() for name in next(csv.reader([header], delimiter=delimiter, skipinitialspace=True), [])]
    except csv.Error:
        return []


def _swallowed(cells: list[str], columns: int, image: int | None, delimiter: str) -> int:
    """Count the lines inside quoted cells that are rows themselves: as many cells, with an image in the same place."""
    if image is None:
        return 0
    lines = [line.split(delimiter) for cell in cells if "\n" in cell for line in cell.splitlines()[1:]]
    return sum(len(parts) >= columns and is_image(parts[image].strip().strip('"')) for parts in lines)
