"""Grids of runs, each trained and evaluated in its own folder, and their table."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import statistics
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from jaxguard.config import AttackConfig, Config, from_dict, to_dict
from jaxguard.config.migrations import first_names
from jaxguard.errors import Preempted, UserError
from jaxguard.experiments.audits import Audits
from jaxguard.experiments.workers import run_tasks
from jaxguard.files import write_text
from jaxguard.report.plots import Plot
from jaxguard.report.summary import Record, summarise, write_tables
from jaxguard.version import commit

RECORD = "cell.json"
"""Record of a finished cell, in its folder."""
EXPORTED = "exported"
"""Folder of a run's exported weights, for cells that start from them."""
COMPILED = "compiled"
"""Folder of the compilation cache, beside the table: cells of equal shapes compile once."""


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes:
        labels: First columns of the table ({"attack": "badnets", ...}). Cells with equal labels (seeds) are one row.
        config: The run. Cells that differ only in their triggers share it.
        triggers: Attack to test with instead of the run's own (a clean-trained model: the floor of the ASR).
        start: Run whose trained weights are the initial ones; `config.model.path` is `exported(start)`.
    """

    labels: Mapping[str, str]
    config: Config
    triggers: AttackConfig | None = None
    start: Config | None = None

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.labels.items()) + f" seed={self.config.seed}"

    @property
    def description(self) -> dict[str, Any]:
        """Description of the run as JSON types, without labels. Options added later read as their defaults."""
        triggers = None if self.triggers is None else dataclasses.asdict(self.triggers)
        return {"config": to_dict(self.config), "triggers": triggers}

    @property
    def folder(self) -> Path:
        """Folder of predictions, scores and record: that of the run, or one inside it per set of triggers."""
        if self.triggers is None:
            return self.config.run_dir
        digest = hashlib.sha256(json.dumps(self.description["triggers"]).encode()).hexdigest()
        return self.config.run_dir / f"{self.triggers.name}-{digest[:8]}"

    @property
    def runs(self) -> frozenset[Path]:
        """Run folders in which it trains. Cells that share one must not run at the same time."""
        return frozenset({self.config.run_dir} | ({self.start.run_dir} if self.start else set()))

    @property
    def work(self) -> int:
        """Number of rows that its training processes, counting both views."""
        return self.config.train.steps * self.config.train.batch_size * self.config.objective.views

    def record(self) -> Record | None:
        """Read the record of this cell; None if it is not finished."""
        try:
            stored = json.loads((self.folder / RECORD).read_text())
            cell = stored["cell"]
            config, triggers = from_dict(cell["config"]), cell["triggers"] and AttackConfig(**cell["triggers"])
        except (OSError, ValueError, LookupError, TypeError, UserError):
            return None
        return stored if (config, triggers) == (self.config, self.triggers) else None


def exported(start: Config) -> Path:
    """Path of a run's exported weights."""
    return start.run_dir / EXPORTED


def named(config: Config, *parts: str) -> Config:
    """Name a run by its configuration: these parts, its seed, and a digest of all non-default values.

    Tables that contain the same run share it. New options and renamed options do not change the name.
    """
    chosen = _chosen(config)
    chosen.pop("name", None)
    digest = hashlib.sha256(json.dumps(first_names(chosen), sort_keys=True).encode()).hexdigest()
    return dataclasses.replace(config, name="-".join([*parts, str(config.seed), digest[:8]]))


def _chosen(config: Any) -> Any:
    """List the values of a (part of a) configuration that differ from the defaults, as JSON types."""
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        return str(config)
    default = type(config)()
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {name: _chosen(value) for name, value in values.items() if value != getattr(default, name)}


@dataclass(frozen=True)
class Grid:
    """Cells of one table; table and plots are written to `out`."""

    out: Path
    cells: tuple[Cell, ...]
    plots: tuple[Plot, ...] = ()

    def __post_init__(self) -> None:
        first: dict[Path, Cell] = {}
        for cell in self.cells:
            other = first.setdefault(cell.folder, cell)
            if (other.config, other.triggers) != (cell.config, cell.triggers):
                raise UserError(f"two cells of the grid share the folder {cell.folder}; give each a name of its own")


@dataclass(frozen=True)
class Cost:
    """Train steps of a cost table; each is compared with the first one of the same model."""

    out: Path
    steps: Mapping[str, Config]
    rounds: int = 20


Table = TypeVar("Table", Grid, Audits)


def select(grid: Table, only: Sequence[str]) -> Table:
    """Select the cells that match every NAME=VALUE of `only`; of several values of one name, any may match.

    Raises:
        UserError: A choice is not NAME=VALUE, or no cell matches.
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
        raise UserError(f"--only {' '.join(only)} matches no cell; choose among {', '.join(known)}")
    return dataclasses.replace(grid, cells=cells)


def plan(grid: Grid) -> str:
    """List the cells: finished, or the expected time, estimated from the finished ones."""
    pace = _pace(grid)
    lines = []
    for cell in grid.cells:
        left = "?" if pace is None else f"{pace * cell.work / 60:.1f} min"
        lines.append(f"{'finished' if cell.record() else left:>10}  {cell}")
    return "\n".join([*lines, f"{len(grid.cells)} cells; {_left(grid, pace)} left"])


def run(grid: Grid, command: str, jobs: int = 1) -> int:
    """Run the unfinished cells, then write the table of all finished ones. Returns the number of failed cells.

    A failed cell is reported and does not affect the others. After a kill or an interrupt, the same call resumes.

    Args:
        grid: Grid to run.
        command: Command of the user, for the commands of the rows.
        jobs: Number of processes that share the cells, the cores and the visible GPUs.

    Raises:
        Preempted: Interrupted; finished cells and the checkpoint of the current one are kept.
    """
    from jaxguard import processes

    failed, left = 0, [chain for cells in _chains(grid.cells) if (chain := [c for c in cells if not c.record()])]
    for cells, errors in _finished(left, grid.out / COMPILED, jobs):
        failed += len(errors)
        if processes.is_main():
            for error in errors:
                print(f"failed: {error}", file=sys.stderr)
            print(f"== {len(cells) - len(errors)} more done: {plan(grid).splitlines()[-1]}", file=sys.stderr)
    if processes.is_main() and (rows := summary(grid, command)):
        write_tables(rows, grid.plots, grid.out, command)
    return failed


def summary(grid: Grid, command: str) -> list[dict[str, Any]]:
    """Make the table's rows over the finished cells."""
    return summarise(((cell.labels, record) for cell in grid.cells if (record := cell.record())), command)


def _chains(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Group the cells that share a run, in their order."""
    chains: list[list[Cell]] = []
    for cell in cells:
        joined = [chain for chain in chains if any(cell.runs & other.runs for other in chain)]
        chains = [chain for chain in chains if chain not in joined]
        chains.append([other for chain in joined for other in chain] + [cell])
    return chains


def _finished(
    chains: Sequence[Sequence[Cell]], compiled: Path, jobs: int
) -> Iterator[tuple[Sequence[Cell], Sequence[str]]]:
    """Run chains of cells in this or in several processes; yields each chain with its errors as it ends."""
    if jobs == 1:
        yield from ((chain, _run_chain(chain, compiled)) for chain in chains)
        return
    for number, errors in run_tasks(_run_chain, [(chain, compiled) for chain in chains], jobs):
        died = [f"{cell}: its process died" for cell in chains[number] if not cell.record()]
        yield chains[number], died if errors is None else errors


def _run_chain(cells: Sequence[Cell], compiled: Path) -> list[str]:
    """Run cells sequentially. Returns an error message for each failed cell."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(compiled.absolute()))
    errors = []
    for cell in cells:
        if cell.record():  # finished meanwhile, as the run of another cell
            continue
        print(f"== {cell}", file=sys.stderr)
        try:
            _run_cell(cell)
        except Preempted:
            raise
        except UserError as error:
            errors.append(f"{cell}: {error}")
        except Exception:  # a bug in one cell must not stop the others
            errors.append(f"{cell}:\n{traceback.format_exc()}")
    return errors


def _run_cell(cell: Cell) -> None:
    from jaxguard import processes
    from jaxguard.audit.guard import train
    from jaxguard.evaluate.identity import read_identity
    from jaxguard.evaluate.run import evaluate
    from jaxguard.train.export import export
    from jaxguard.train.setup import load_model

    began = time.perf_counter()
    if cell.start and not exported(cell.start).exists():
        train(cell.start)
        export(cell.start, exported(cell.start), "float32")
    model = load_model(cell.config.model, cell.config.mesh, cell.config.seed)
    train(cell.config, model)
    scores = evaluate(cell.config, model, cell.triggers, cell.folder)
    record = {
        "cell": cell.description,
        "scores": dataclasses.asdict(scores),
        "seconds": time.perf_counter() - began,
        "commit": commit(),
    }
    if processes.is_main():
        identity = read_identity(cell.folder)
        record["evaluation"] = None if identity is None else dataclasses.asdict(identity)
        write_text(cell.folder / RECORD, json.dumps(record, indent=1) + "\n")


def _pace(grid: Grid) -> float | None:
    """Compute the median time of the finished cells, in seconds per training row."""
    paces = [record["seconds"] / cell.work for cell in grid.cells if (record := cell.record())]
    return statistics.median(paces) if paces else None


def _left(grid: Grid, pace: float | None) -> str:
    work = sum(cell.work for cell in grid.cells if not cell.record())
    return "unknown time" if pace is None else f"about {pace * work / 60:.0f} min"
