"""What is wrong with a data set: every kind counted, the first ten of each kept."""

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
    """One thing that is wrong, where the code that notices it does not know the place."""

    def __init__(self, kind: str, what: str):
        super().__init__(what)
        self.kind = kind


@dataclass
class Problems:
    """Counts of what is wrong, by kind, and the first of each kind as lines for people."""

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
        """A heading per kind with its count, below it the first lines."""
        blocks = []
        for kind, count in self.counts.items():
            more = [f"  ... and {count - SHOWN} more"] * (count > SHOWN)
            blocks += [f"{kind}: {count}", *(f"  {line}" for line in self.first[kind]), *more]
        return "\n".join(blocks)
