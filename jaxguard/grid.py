"""A grid of runs, each an ordinary train and evaluate in a folder of its own, and the table over them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from jaxguard import __version__
from jaxguard.config import AttackConfig, Config, from_dict, to_dict
from jaxguard.errors import Preempted, UserError
from jaxguard.evaluate.success import Rate, wilson
from jaxguard.files import write_text
from jaxguard.report.tables import Column, comma_separated, latex, markdown, rate_text, terminal

RECORD = "cell.json"
"""What a finished cell leaves in its folder."""

Record = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes:
        labels: the table's first columns ({"attack": "badnets", ...}); cells of equal labels (other seeds) are one row.
        config: the run; cells that differ in their triggers alone share it.
        triggers: the attack to test with where it is not the run's own (the floor of a clean-trained model).
    """

    labels: Mapping[str, str]
    config: Config
    triggers: AttackConfig | None = None

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.labels.items()) + f" seed={self.config.seed}"

    @property
    def description(self) -> dict[str, Any]:
        """What was run, as JSON types. An option that comes later keeps its default in it; labels may change."""
        triggers = None if self.triggers is None else dataclasses.asdict(self.triggers)
        return {"config": to_dict(self.config), "triggers": triggers}

    @property
    def folder(self) -> Path:
        """Where its predictions, scores and record lie: the run's folder, or one inside it for each set of triggers."""
        if self.triggers is None:
            return self.config.run_dir
        digest = hashlib.sha256(json.dumps(self.description["triggers"]).encode()).hexdigest()
        return self.config.run_dir / f"{self.triggers.name}-{digest[:8]}"

    @property
    def work(self) -> int:
        """Rows that its training runs through the model, both views counted."""
        return self.config.train.steps * self.config.train.batch_size * self.config.objective.views

    def record(self) -> Record | None:
        """What this very cell left behind; None where it is not finished."""
        try:
            stored = json.loads((self.folder / RECORD).read_text())
            cell = stored["cell"]
            config, triggers = from_dict(cell["config"]), cell["triggers"] and AttackConfig(**cell["triggers"])
        except (OSError, ValueError, LookupError, TypeError, UserError):
            return None
        return stored if (config, triggers) == (self.config, self.triggers) else None


@dataclass(frozen=True)
class Grid:
    """Cells that make one table, which is written to `out`."""

    out: Path
    cells: tuple[Cell, ...]

    def __post_init__(self) -> None:
        folders = [cell.folder for cell in self.cells]
        for folder in folders:
            if folders.count(folder) > 1:
                raise UserError(f"two cells of the grid share the folder {folder}; give each a name of its own")


def select(grid: Grid, only: Sequence[str]) -> Grid:
    """The cells that fit every NAME=VALUE of `only`; several values of one name mean any of them.

    Raises:
        UserError: something is not NAME=VALUE, or nothing fits.
    """
    wanted: dict[str, set[str]] = {}
    for choice in only:
        name, equals, value = choice.partition("=")
        if not equals:
            raise UserError(f"--only {choice}: must be NAME=VALUE, as in attack=badnets")
        wanted.setdefault(name, set()).add(value)
    cells = tuple(c for c in grid.cells if all(c.labels.get(name) in values for name, values in wanted.items()))
    if not cells:
        known = sorted({f"{name}={value}" for cell in grid.cells for name, value in cell.labels.items()})
        raise UserError(f"--only {' '.join(only)} fits no cell; choose among {', '.join(known)}")
    return dataclasses.replace(grid, cells=cells)


def plan(grid: Grid) -> str:
    """One line a cell: finished, or how long it will take, judged by the finished ones."""
    pace = _pace(grid)
    lines = []
    for cell in grid.cells:
        left = "?" if pace is None else f"{pace * cell.work / 60:.1f} min"
        lines.append(f"{'finished' if cell.record() else left:>10}  {cell}")
    return "\n".join([*lines, f"{len(grid.cells)} cells; {_left(grid, pace)} left"])


def run(grid: Grid, source: Path) -> int:
    """Run what is not finished, then write the table of everything that is. Returns the number of failed cells.

    A cell that fails is reported and leaves the others alone. Killed or interrupted, the same call goes on.

    Args:
        grid: what to run.
        source: the grid's file, for the rows' commands.

    Raises:
        Preempted: interrupted; finished cells and the checkpoint of the current one are kept.
    """
    from jaxguard import processes

    failed = 0
    for number, cell in enumerate(grid.cells, 1):
        if cell.record():
            continue
        if processes.first():
            print(f"== cell {number}/{len(grid.cells)}: {cell}; {_left(grid, _pace(grid))} left", file=sys.stderr)
        try:
            _run_cell(cell)
        except Preempted:
            raise
        except UserError as error:
            failed += 1
            print(f"failed: {cell}: {error}", file=sys.stderr)
        except Exception:  # a bug in one cell must not cost the others hours
            failed += 1
            print(f"failed: {cell}:\n{traceback.format_exc()}", file=sys.stderr)
    if processes.first():
        write_tables(grid, source)
    return failed


def write_tables(grid: Grid, source: Path) -> None:
    """table.md, table.tex, table.csv and results.json of the finished cells; the table goes to the terminal too."""
    rows = summarise(grid, source)
    if not rows:
        return
    columns = _columns(rows[0]["labels"])
    grid.out.mkdir(parents=True, exist_ok=True)
    write_text(grid.out / "table.md", markdown(rows, columns))
    write_text(grid.out / "table.tex", latex(rows, columns))
    write_text(grid.out / "table.csv", comma_separated(rows, columns))
    write_text(grid.out / "results.json", json.dumps({"grid": str(source), "rows": rows}, indent=1) + "\n")
    Console().print(terminal(rows, columns, str(source)))
    print(f"wrote {grid.out}/table.md, table.tex, table.csv and results.json", file=sys.stderr)


def summarise(grid: Grid, source: Path) -> list[dict[str, Any]]:
    """One row for each set of labels over its finished seeds: means of qualities, pooled rates, and every record."""
    groups: dict[tuple, list[Record]] = {}
    for cell in grid.cells:
        if record := cell.record():
            groups.setdefault(tuple(cell.labels.items()), []).append(record)
    return [_row(dict(labels), records, source) for labels, records in groups.items()]


def _run_cell(cell: Cell) -> None:
    from jaxguard import processes
    from jaxguard.evaluate.run import evaluate
    from jaxguard.train.loop import train
    from jaxguard.train.setup import load_model

    began = time.perf_counter()
    model = load_model(cell.config)
    train(cell.config, model)
    scores = evaluate(cell.config, model, cell.triggers, cell.folder)
    record = {
        "cell": cell.description,
        "scores": dataclasses.asdict(scores),
        "seconds": time.perf_counter() - began,
        "commit": _commit(),
    }
    if processes.first():
        write_text(cell.folder / RECORD, json.dumps(record, indent=1) + "\n")


def _row(labels: dict[str, str], records: list[Record], source: Path) -> dict[str, Any]:
    scores = [record["scores"] for record in records]
    metric = next(name for name in ("facts", "accuracy", "cider") if name in scores[0]["clean"])
    attacks = [score["attack"] for score in scores if score["attack"]]

    def quality(part: str) -> float | None:
        values = [score[part][metric] for score in scores if score[part]]
        return statistics.fmean(values) if values else None

    def pooled(name: str) -> Rate | None:
        rates = [attack[name] for attack in attacks]
        return wilson(sum(r["successes"] for r in rates), sum(r["trials"] for r in rates)) if rates else None

    rates = {name: pooled(name) for name in ("exact", "contains", "untriggered")}
    return {
        "labels": labels,
        "metric": metric,
        "clean": quality("clean"),
        "triggered": quality("triggered"),
        **{name: rate and dataclasses.asdict(rate) for name, rate in rates.items()},
        "seeds": [record["cell"]["config"]["seed"] for record in records],
        "command": " ".join(["jaxguard table", str(source), "--only", *(f"{n}={v}" for n, v in labels.items())]),
        "records": records,
    }


def _columns(labels: Mapping[str, str]) -> list[Column]:
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
        rate("untriggered %", "untriggered"),
        number("triggered", "triggered"),
        Column("seeds", lambda row: str(len(row["seeds"]))),
    ]


def _pace(grid: Grid) -> float | None:
    """Median seconds of a finished cell per row it trained on."""
    paces = [record["seconds"] / cell.work for cell in grid.cells if (record := cell.record())]
    return statistics.median(paces) if paces else None


def _left(grid: Grid, pace: float | None) -> str:
    work = sum(cell.work for cell in grid.cells if not cell.record())
    return "unknown time" if pace is None else f"about {pace * work / 60:.0f} min"


def _commit() -> str:
    """The commit of the code, or its version where it is no checkout."""
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    found = subprocess.run(git, capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else __version__
