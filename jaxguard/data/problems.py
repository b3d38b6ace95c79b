"""Problems of a data set: the count of each kind, and the first ten of each."""

from __future__ import annotations

from dataclasses import dataclass, field

SHOWN = 10

FILES = "unreadable files"
MALFORMED = "malformed rows"
DUPLICATE = "duplicate ids"
EMPTY = "empty texts"
PLACEHOLDERS = "placeholders that do not match the images"
OUTSIDE = "images outside the folder"
MISSING = "missing images"
UNREADABLE = "unreadable images"
LONG = "rows beyond the budget"


class Fault(Exception):
    """A problem found by code that does not know its place in the data set."""

    def __init__(self, kind: str, what: str):
        super().__init__(what)
        self.kind = kind


@dataclass
class Problems:
    """Number of problems by kind, and the first of each kind as lines for display."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, where: str, what: object) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        lines = self.first.setdefault(kind, [])
        if len(lines) < SHOWN:
            lines.append(" ".join(f"{where} {what}".splitlines()))

    def __len__(self) -> int:
        return sum(self.counts.values())

    def report(self) -> str:
        """Format each kind as a heading with its count, followed by its first lines."""
        blocks = []
        for kind, count in self.counts.items():
            more = [f"  ... and {count - SHOWN} more"] * (count > SHOWN)
            blocks += [f"{kind}: {count}", *(f"  {line}" for line in self.first[kind]), *more]
        return "\n".join(blocks)
