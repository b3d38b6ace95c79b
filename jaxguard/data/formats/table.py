"""Tables in a folder: every `*.csv` and `*.jsonl` at its top, one row a line, images by name.

Columns: `image` (or `file_name`), empty or absent in a text-only row; `prompt` (or `question`), by default the caption
prompt; `answer` (or `caption`, `text`); in JSONL also `references`, a list; `split`, by default from the file's name;
`id`, by default the position in the file.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from functools import partial
from typing import Any

from etils import epath

from jaxguard.data.formats.listing import (
    SPLITS,
    Listed,
    Listing,
    field,
    identifier,
    parsed,
    plain_text,
    read_json_lines,
    split_of,
    text,
    unique,
)
from jaxguard.data.problems import EMPTY, FILES, MALFORMED, Fault, Problems
from jaxguard.data.rows import CAPTION_PROMPT

IMAGES, PROMPTS, ANSWERS = ("image", "file_name"), ("prompt", "question"), ("answer", "caption", "text")


def recognises(root: epath.Path) -> bool:
    """Return True if a folder holds such tables."""
    return bool(_files(root))


def read(root: epath.Path, problems: Problems) -> Listing:
    """List the rows of each split, in the order of the files."""
    listing: Listing = {}
    for path in _files(root):
        lines = _csv_lines(path, problems) if path.suffix == ".csv" else read_json_lines(path, problems)
        placed = ((where, (where, item)) for where, item in lines)
        for split, row in parsed(placed, partial(_row, split_of(path.stem)), problems):
            listing.setdefault(split, []).append(row)
    return {split: unique(rows, split, problems) for split, rows in listing.items()}


def _files(root: epath.Path) -> list[epath.Path]:
    return sorted(path for pattern in ("*.csv", "*.jsonl") for path in root.glob(pattern))


def _csv_lines(path: epath.Path, problems: Problems) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (FILE:LINE, the line's cells that are not empty)."""
    try:
        with path.open("rb") as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as lines:
            table = csv.DictReader(lines, strict=True)
            for cells in table:
                where = f"{path.name}:{table.line_num}"
                if None in cells:
                    problems.add(MALFORMED, where, "has more cells than the header")
                else:
                    yield where, {name: cell for name, cell in cells.items() if cell}
    except (OSError, ValueError, csv.Error) as error:
        problems.add(FILES, path.name, f"is not readable as CSV ({error})")


def _row(default_split: str, placed: tuple[str, Any]) -> tuple[str, Listed]:
    where, item = placed
    answer = plain_text(item, _present(item, ANSWERS) or ANSWERS[0])
    image, prompt = _present(item, IMAGES), _present(item, PROMPTS)
    references: tuple[str, ...] = (answer,)
    if "references" in item:
        references = tuple(plain_text({"references": one}, "references") for one in field(item, "references", list))
        if not references:
            raise Fault(EMPTY, "has no 'references'")
    split = text(item, "split") if "split" in item else default_split
    if split not in SPLITS:
        raise Fault(MALFORMED, f"has the split {split!r}; one of {', '.join(SPLITS)} is wanted")
    return SPLITS[split], Listed(
        key=identifier(item, "id") if "id" in item else where,
        images=() if image is None else (text(item, image),),
        prompts=(CAPTION_PROMPT if prompt is None else plain_text(item, prompt),),
        answers=(answer,),
        references=references,
    )


def _present(item: Any, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if isinstance(item, dict) and name in item), None)
