"""The verbs that run many experiments. Heavy imports are inside the verbs, after the input is checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from jaxguard.cli.arguments import Arguments
from jaxguard.errors import Failure, UserError
from jaxguard.experiments import audits
from jaxguard.experiments.audits import Audits
from jaxguard.experiments.configurations import load_grid
from jaxguard.experiments.grid import Cost, plan, run, select
from jaxguard.experiments.tiny import FAMILY, families
from jaxguard.files import check_writable


@dataclass(frozen=True)
class TableOptions:
    file: Positional[Path]
    """Python file that defines `grids`, as configs/tables/*.py do."""
    scale: str = "tiny"
    """Which of its grids: "tiny" runs on two cores, "full" on a pod."""
    only: tuple[str, ...] = ()
    """NAME=VALUE ...: only cells with these labels."""
    jobs: int = 1
    """Number of processes that share the cells, the cores and the GPUs in CUDA_VISIBLE_DEVICES."""
    dry_run: bool = False
    """List the cells and the expected time; run nothing."""
    json: bool = False
    """List them as JSON."""


def table(arguments: Arguments) -> None:
    """Train and evaluate the unfinished cells of a grid and write its table; the same command resumes."""
    options = arguments.parse(TableOptions)
    if options.json and not options.dry_run:
        raise UserError("table: --json goes with --dry_run; the table is written as results.json")
    if options.jobs < 1:
        raise UserError(f"table: --jobs is {options.jobs}: must be at least 1")
    scale = "" if options.scale == "tiny" else f" --scale {options.scale}"
    command, grid = f"jaxguard table {options.file}{scale}", load_grid(options.file, options.scale)
    if isinstance(grid, Cost):
        _cost(grid, options, command)
        return
    if isinstance(grid, Audits):
        _audits(select(grid, options.only), options, command)
        return
    grid = select(grid, options.only)
    if options.dry_run:
        cells = [{"labels": c.labels, "run": str(c.folder), "finished": bool(c.record())} for c in grid.cells]
        print(json.dumps(cells, indent=2, default=dict) if options.json else plan(grid))
        return
    check_writable(grid.out)
    from jaxguard import processes

    processes.connect()
    failed = run(grid, command, options.jobs)
    if failed:
        raise Failure(f"{failed} of {len(grid.cells)} cells failed, see above; the same command tries them again")


def _audits(table: Audits, options: TableOptions, command: str) -> None:
    """Run a table of audits, one after the other."""
    if options.jobs != TableOptions.jobs:
        raise UserError(f"table: {options.file} makes one audit after the other; leave --jobs out")
    if options.dry_run:
        cells = [{"labels": c.labels, "audit": str(c.folder), "finished": bool(c.report())} for c in table.cells]
        print(json.dumps(cells, indent=2, default=dict) if options.json else audits.plan(table))
        return
    check_writable(table.out)
    audits.run(table, command)


def _cost(cost: Cost, options: TableOptions, command: str) -> None:
    """Run a cost table. Its steps alternate in one process, so --only and --jobs do not apply."""
    for name in ("only", "jobs"):
        if getattr(options, name) != getattr(TableOptions, name):
            raise UserError(f"table: {options.file} times alternating steps; leave --{name} out")
    if options.dry_run:
        listed = "\n".join([*cost.steps, f"{len(cost.steps)} steps, {cost.rounds} rounds"])
        print(json.dumps([{"step": name} for name in cost.steps], indent=2) if options.json else listed)
        return
    check_writable(cost.out)
    from jaxguard.bench.cost import run_cost

    run_cost(cost, command)


@dataclass(frozen=True)
class DemoOptions:
    task: Literal["caption", "vqa"] = "caption"
    """Captions of scenes, or questions of easy-VQA."""
    family: str = FAMILY
    """Which of the shipped models: its name without "tiny-"."""
    out: Path | None = None
    """Folder for the runs, results and picture; None is runs/demo, or runs/demo-FAMILY for another family."""


def demo(arguments: Arguments) -> None:
    """Fine-tune a tiny model on poisoned data, undefended and defended; print a table, draw a picture."""
    options = arguments.parse(DemoOptions)
    if options.family not in families():
        raise UserError(f"demo: --family is {options.family}: must be one of {', '.join(families())}")
    out = options.out or Path("runs/demo" if options.family == FAMILY else f"runs/demo-{options.family}")
    check_writable(out)
    from jaxguard.experiments.demo import demo

    demo(options.task, out, options.family)
