"""Audits of rows whose poison is known, beside each other: what is missed, and what is accused wrongly."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxguard.config import Config, from_dict
from jaxguard.errors import UserError
from jaxguard.files import write_text

FOLDER = "audit"
"""Folder of an audit, in that of its run."""
COLUMNS = (
    *("answers", "poisoned answers", "missed %", "clean tokens left out %", "poisoned rows flagged %"),
    *("clean rows flagged %", "convicted", "false convictions", "smallest count", "sight, nats"),
)


@dataclass(frozen=True)
class AuditCell:
    """One audit.

    Attributes:
        labels: first columns of the table.
        config: the run whose training rows are audited; its attack says which of them are poisoned.
    """

    labels: Mapping[str, str]
    config: Config

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.labels.items())

    @property
    def folder(self) -> Path:
        """Folder of the audit."""
        return self.config.run_dir / FOLDER

    def report(self) -> dict[str, Any] | None:
        """Read the report of this cell; None if it is not finished."""
        try:
            stored: dict[str, Any] = json.loads((self.folder / "report.json").read_text())
            config = from_dict(stored["config"])
        except (OSError, ValueError, LookupError, TypeError, UserError):
            return None
        return stored if config == self.config else None


@dataclass(frozen=True)
class Audits:
    """Cells of one table, which is written to `out`."""

    out: Path
    cells: tuple[AuditCell, ...]


def plan(audits: Audits) -> str:
    """List the cells, and which are finished."""
    return "\n".join(f"{'finished' if cell.report() else 'to do':>10}  {cell}" for cell in audits.cells)


def run(audits: Audits, command: str) -> None:
    """Make the unfinished audits, then write the table of all finished ones."""
    left = [cell for cell in audits.cells if cell.report() is None]
    for number, cell in enumerate(left, 1):
        began = time.perf_counter()
        _audit(cell)
        print(f"== {number} of {len(left)}: {cell}, {time.perf_counter() - began:.0f} s", file=sys.stderr)
    rows = list(_rows(audits))
    audits.out.mkdir(parents=True, exist_ok=True)
    write_text(audits.out / "results.json", json.dumps({"command": command, "rows": rows}, indent=1) + "\n")
    write_text(audits.out / "table.md", _table(rows, command))


def _audit(cell: AuditCell) -> None:
    from jaxguard.audit.findings import audit_all
    from jaxguard.audit.record import write_record
    from jaxguard.data.encode import Encoder
    from jaxguard.models import folders
    from jaxguard.train.loop import training_source

    config = cell.config
    encoder, source = Encoder.from_checkpoint(folders.resolve(config.model.path)), training_source(config)
    write_record(config, audit_all(config, encoder, source), encoder, source, cell.folder)


def _rows(audits: Audits) -> Iterator[dict[str, Any]]:
    """Labels and figures of the finished cells."""
    for cell in audits.cells:
        report = cell.report()
        if report is None:
            continue
        planted, rows = report["planted"], report["rows"]
        bad = 0 if planted is None else planted["poisoned rows"]
        answers = 0 if planted is None else planted["poisoned answers"]
        flagged = 0 if planted is None else planted["poisoned rows flagged"]
        convicted = sum(group["convicted"] for group in report["groups"])
        out = 100 * report["tokens left out"] / report["tokens"] if planted is None else None
        figures = (
            report["answers"],
            answers,
            100 * planted["missed"] / answers if answers else None,
            planted["clean tokens left out %"] if planted else out,
            100 * flagged / bad if bad else None,
            100 * (len(report["rows flagged"]) - flagged) / (rows - bad),
            convicted,
            planted["false convictions"] if planted else convicted,
            report["smallest count"],
            report["sight"] and report["sight"]["mean"],
        )
        yield {**cell.labels, **dict(zip(COLUMNS, figures, strict=True))}


def _table(rows: list[dict[str, Any]], command: str) -> str:
    """The figures as Markdown."""

    def text(value: Any) -> str:
        return "-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)

    names = list(rows[0]) if rows else []
    lines = ["| " + " | ".join(line) + " |" for line in (names, ["---"] * len(names))]
    lines += ["| " + " | ".join(text(value) for value in row.values()) + " |" for row in rows]
    return "\n".join([*lines, "", f"Command: `{command}`"]) + "\n"
