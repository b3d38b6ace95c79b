"""The verbs that run many experiments. What is heavy is imported inside its verb, after the input was checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from jaxguard.cli.arguments import Arguments
from jaxguard.errors import Failure, UserError
from jaxguard.experiments.configurations import load_grid
from jaxguard.experiments.grid import Cost, plan, run, run_cost, select
from jaxguard.experiments.tiny import FAMILY, families
from jaxguard.files import check_writable


@dataclass(frozen=True)
class TableOptions:
    file: Positional[Path]
    """A Python file that defines `grids`, by scale."""
    scale: str = "tiny"
    """Which of them: tiny ones run on two cores, full ones on a pod."""
    only: tuple[str, ...] = ()
    """NAME=VALUE ...: the cells with these labels."""
    jobs: int = 1
    """Processes that share the cells, the cores and the GPUs that CUDA_VISIBLE_DEVICES names."""
    dry_run: bool = False
    """List the cells and what they will take."""


def table(arguments: Arguments) -> None:
    """Train and evaluate every unfinished cell of a grid, then write its table; run again to go on."""
    options = arguments.parse(TableOptions)
    if options.jobs < 1:
        raise UserError(f"table: --jobs is {options.jobs}: must be at least 1")
    scale = "" if options.scale == "tiny" else f" --scale {options.scale}"
    command, grid = f"jaxguard table {options.file}{scale}", load_grid(options.file, options.scale)
    if isinstance(grid, Cost):
        _cost(grid, options, command)
        return
    grid = select(grid, options.only)
    if options.dry_run:
        print(plan(grid))
        return
    check_writable(grid.out)
    from jaxguard import processes

    processes.connect()
    failed = run(grid, command, options.jobs)
    if failed:
        raise Failure(f"{failed} of {len(grid.cells)} cells failed, as told above; the same command tries them again")


def _cost(cost: Cost, options: TableOptions, command: str) -> None:
    """Steps that take turns can neither be chosen among nor run beside one another."""
    for name in ("only", "jobs"):
        if getattr(options, name) != getattr(TableOptions, name):
            raise UserError(f"table: {options.file} times steps side by side; leave --{name} out")
    if options.dry_run:
        print("\n".join([*cost.steps, f"{len(cost.steps)} steps, {cost.rounds} rounds"]))
        return
    check_writable(cost.out)
    run_cost(cost, command)


@dataclass(frozen=True)
class DemoOptions:
    task: Literal["caption", "vqa"] = "caption"
    family: str = FAMILY
    """Which of the shipped models: its name without "tiny-"."""
    out: Path | None = None
    """Where the runs, results.json and the picture go: runs/demo, for another family runs/demo-FAMILY."""


def demo(arguments: Arguments) -> None:
    """Plant a backdoor in a small model, then fine-tune with the defence on: a table and a picture."""
    options = arguments.parse(DemoOptions)
    if options.family not in families():
        raise UserError(f"demo: --family is {options.family}: must be one of {', '.join(families())}")
    out = options.out or Path("runs/demo" if options.family == FAMILY else f"runs/demo-{options.family}")
    check_writable(out)
    from jaxguard.experiments.demo import demo

    demo(options.task, out, options.family)
