"""Problems of a data set: all of them in order, the count of each kind, and the first ten of each for display."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from jaxguard.files import write_text

SHOWN = 10

FILES = "unreadable files"
REPEATED = "files that repeat each other"
MALFORMED = "malformed rows"
DUPLICATE = "duplicate ids"
EMPTY = "empty texts"
PLACEHOLDERS = "placeholders that do not match the images"
IMAGELESS = "rows without an image"
OUTSIDE = "images outside the folder"
MISSING = "missing images"
UNREADABLE = "unreadable images"
LEFT = "rows left out with their images"
LONG = "rows beyond the budget"

OF_ROWS = frozenset({MALFORMED, EMPTY, PLACEHOLDERS, IMAGELESS})
OF_IMAGES = frozenset({OUTSIDE, MISSING, UNREADABLE})


class Fault(Exception):
    """A problem found by code that does not know its place in the data set."""

    def __init__(self, kind: str, what: str):
        super().__init__(what)
        self.kind = kind


def printable(text: str) -> str:
    """Return a text in one line, with the characters that a terminal obeys written out."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], " ".join(text.splitlines()))


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem: its kind, the file and row or the image, and what is wrong there."""

    kind: str
    where: str
    what: str

    def __str__(self) -> str:
        return printable(f"{self.where} {self.what}")


@dataclass
class Problems:
    """All problems of a data set, in the order in which they were found."""

    found: list[Problem] = field(default_factory=list)

    def add(self, kind: str, where: str, what: object) -> None:
        self.found.append(Problem(kind, where, str(what)))

    def __len__(self) -> int:
        return len(self.found)

    @property
    def counts(self) -> dict[str, int]:
        """Number of problems of each kind."""
        return dict(Counter(problem.kind for problem in self.found))

    def report(self, most: int | None = SHOWN) -> str:
        """Format each kind as a heading with its count, followed by its first `most` lines (None: all)."""
        by_kind: dict[str, list[Problem]] = {}
        for problem in self.found:
            by_kind.setdefault(problem.kind, []).append(problem)
        blocks = []
        for kind, problems in by_kind.items():
            blocks += [f"{kind}: {len(problems)}", *(f"  {problem}" for problem in problems[:most])]
            if most is not None and len(problems) > most:
                blocks.append(f"  ... and {len(problems) - most} more (--all shows them)")
        return "\n".join(blocks)

    def json_lines(self) -> str:
        """All problems as JSON lines with `kind`, `where` and `what`."""
        return "".join(json.dumps(asdict(problem)) + "\n" for problem in self.found)

    def write(self, path: Path) -> None:
        """Write `json_lines` to a file."""
        write_text(path, self.json_lines())
