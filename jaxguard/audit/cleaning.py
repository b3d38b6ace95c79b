"""A data set without the rows that an audit flagged: a copy; the original is never touched."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from jaxguard.audit.record import QUARANTINE, read_report, texts_digest
from jaxguard.config import Config, from_dict
from jaxguard.data.rows import Row
from jaxguard.data.sources import RowSource
from jaxguard.errors import UserError

LEFT_OUT = "quarantined.csv"
"""File in the cleaned folder: the rows that are not in it, and why."""


def clean(folder: Path, out: Path) -> dict[str, int]:
    """Write the audited training rows but those of phrases whose verdict is quarantine.

    Rows keep their order and get new ids. Tokens that are suspicious outside such phrases stay: rows hold whole
    answers, and it is the guard that leaves tokens out.

    Args:
        folder: of an audit, with its verdicts.
        out: folder of the data set to write.

    Returns:
        Number of rows kept and quarantined.

    Raises:
        UserError: no audit, `out` exists, nothing would be left, or the rows are others than those that were audited.
    """
    report = read_report(folder)
    if out.exists():
        raise UserError(f"{out} exists; name another folder")
    from jaxguard.data.builders import write_rows
    from jaxguard.train.loop import training_source

    config: Config = from_dict(report["config"])
    source = training_source(config)
    if report["texts"] != texts_digest(config, source):
        raise UserError(f"{config.data.source} has other rows than the audit in {folder} read; audit it again")
    reasons = _reasons(report)
    kept = [row for row in range(config.data.limit or len(source)) if row not in reasons]
    if not kept:
        raise UserError(f"{folder}: no row would be left; look at its verdicts")
    listed = io.StringIO()
    writer = csv.writer(listed, lineterminator="\n")
    writer.writerow(["row", "key", "phrases"])
    for row, phrases in sorted(reasons.items()):
        writer.writerow([row, source[row].key, " | ".join(phrases)])
    rows = partial(_renumbered, source, kept)
    write_rows({config.data.train_split: (len(kept), rows)}, out, "cleaned", extra={LEFT_OUT: listed.getvalue()})
    return {"kept": len(kept), "quarantined": len(reasons)}


def _reasons(report: dict[str, Any]) -> dict[int, list[str]]:
    """The quarantined rows, each with the phrases for which it is."""
    found: dict[int, list[str]] = {}
    for group in report["groups"]:
        if group["verdict"] == QUARANTINE:
            for row in group["rows"]:
                found.setdefault(int(row), []).append(group["phrase"])
    return found


def _renumbered(source: RowSource, kept: list[int]) -> Iterator[Row]:
    return (dataclasses.replace(source[row], id=number) for number, row in enumerate(kept))
