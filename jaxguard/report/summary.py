"""Table rows over the finished cells of a grid: seeds pooled, with intervals."""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from jaxguard.evaluate.scores import migrate
from jaxguard.evaluate.success import Rate, wilson
from jaxguard.files import write_text
from jaxguard.report.plots import Plot, save
from jaxguard.report.tables import Column, comma_separated, latex, markdown, rate_text, terminal

Record = dict[str, Any]
"""Record of a finished cell: {"cell": its description, "scores": ..., "seconds": ..., "commit": ...}."""

Labelled = tuple[Mapping[str, str], Record]
"""Labels of a cell, and its record."""


def summarise(cells: Iterable[Labelled], command: str) -> list[dict[str, Any]]:
    """Make one row for each set of labels: mean qualities, pooled rates and the records of all seeds.

    Args:
        cells: Finished cells; records written with the first names of scores are migrated.
        command: Runs the whole grid; each row's command adds the selection of its own cells.
    """
    groups: dict[tuple, list[Record]] = {}
    for labels, record in cells:
        groups.setdefault(tuple(labels.items()), []).append(record | {"scores": migrate(record["scores"])})
    return [_row(dict(labels), records, command) for labels, records in groups.items()]


def write_tables(rows: Sequence[Mapping[str, Any]], plots: Iterable[Plot], out: Path, title: str) -> None:
    """Write table.md, table.tex, table.csv, results.json and the plots to `out`; print the table."""
    columns = _columns(dict.fromkeys(name for row in rows for name in row["labels"]))
    if any(row["evaluated"] for row in rows):
        columns.append(Column("evaluated", lambda row: row["evaluated"] or "-"))
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "table.md", markdown(rows, columns))
    write_text(out / "table.tex", latex(rows, columns))
    write_text(out / "table.csv", comma_separated(rows, columns))
    write_text(out / "results.json", json.dumps({"grid": title, "rows": rows}, indent=1) + "\n")
    Console().print(terminal(rows, columns, title))
    drawn = [name for plot in plots for name in save(plot, rows, out)]
    print(
        f"wrote {', '.join(['table.md', 'table.tex', 'table.csv', 'results.json', *drawn])} to {out}", file=sys.stderr
    )


def _row(labels: dict[str, str], records: list[Record], command: str) -> dict[str, Any]:
    scores = [record["scores"] for record in records]
    metric = next(name for name in ("facts", "accuracy", "cider") if name in scores[0]["clean"])
    attacks = [score["attack"] for score in scores if score["attack"]]

    def quality(part: str) -> float | None:
        values = [score[part][metric] for score in scores if score[part]]
        return statistics.fmean(values) if values else None

    def pooled(name: str) -> Rate | None:
        rates = [attack[name] for attack in attacks]
        return wilson(sum(r["successes"] for r in rates), sum(r["trials"] for r in rates)) if rates else None

    rates = {name: pooled(name) for name in ("exact", "contains", "exact_on_clean")}
    return {
        "labels": labels,
        "metric": metric,
        "clean": quality("clean"),
        "clean_seeds": [score["clean"][metric] for score in scores],
        "recovery": quality("recovery"),
        **{name: rate and dataclasses.asdict(rate) for name, rate in rates.items()},
        "seeds": [record["cell"]["config"]["seed"] for record in records],
        "evaluated": _evaluated(records),
        "command": " ".join(
            [command, "--only", *(f"'{n}={v}'" if " " in v else f"{n}={v}" for n, v in labels.items())]
        ),
        "records": records,
    }


def _evaluated(records: Sequence[Record]) -> str:
    """Say which steps were evaluated on how many rows by which code; empty for records of earlier versions."""
    known = [found for record in records if (found := record.get("evaluation"))]
    texts = (f"step {one['step']}, {one['rows']} rows, {one['commit']}" for one in known)
    return "; ".join(dict.fromkeys(texts))


def _columns(labels: Iterable[str]) -> list[Column]:
    def label(name: str) -> Column:
        return Column(name, lambda row: row["labels"].get(name, "-"))

    def number(header: str, key: str) -> Column:
        return Column(header, lambda row: "-" if row[key] is None else f"{row[key]:.1f}")

    def rate(header: str, key: str) -> Column:
        return Column(header, lambda row: rate_text(Rate(**row[key]) if row[key] else None))

    return [
        *(label(name) for name in labels),
        Column("metric", lambda row: row["metric"]),
        number("clean", "clean"),
        rate("ASR exact %", "exact"),
        rate("ASR contains %", "contains"),
        rate("ASR on clean inputs %", "exact_on_clean"),
        number("recovery", "recovery"),
        Column("seeds", lambda row: str(len(row["seeds"]))),
    ]
