"""The verbs that read metrics and predictions and use no device. Heavy imports are inside the verbs."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from jaxguard.cli.arguments import Arguments
from jaxguard.config.files import load
from jaxguard.errors import UserError
from jaxguard.evaluate.identity import FOLDER, Evaluation, chosen, open_evaluation
from jaxguard.files import check_writable, write_text

Task = Literal["caption", "vqa"]


@dataclass(frozen=True)
class ScoreOptions:
    predictions: Positional[Path]
    """Predictions file of any system (docs/evaluation.md), folder of an evaluation, or run folder: its evaluation with
    its own triggers, of the latest step, of most rows."""
    task: Task | None = None
    """Selects the metrics; None takes the task of the run, else caption."""
    out: Path | None = None
    """File to write the scores to, besides printing them."""


def score(arguments: Arguments) -> None:
    """Score a predictions file of a run or of another system; uses no device."""
    options = arguments.parse(ScoreOptions)
    found, task = _evaluation(options.predictions, options.task)
    _check_file("score", options.out)
    from jaxguard.evaluate import java
    from jaxguard.evaluate.scores import score, to_text

    about = {} if found.identity is None else {"evaluation": dataclasses.asdict(found.identity)}
    text = to_text(score(found.predictions(), task, java.find()), about)
    print(f"scoring {found}", file=sys.stderr)
    _write(options.out, text)
    print(text, end="")


@dataclass(frozen=True)
class CompareOptions:
    first: Positional[Path]
    """Run folder, folder of an evaluation, or predictions file."""
    second: Positional[Path]
    """Another one for the same test rows."""
    task: Task | None = None
    """Selects the metrics; None takes the task of the runs, else caption."""
    resamples: int = 10_000
    """Number of bootstrap draws."""
    out: Path | None = None
    """File to write the differences to as JSON, besides printing them."""
    json: bool = False
    """Print them as JSON."""


def compare(arguments: Arguments) -> None:
    """Compare two runs on the same rows, with paired bootstrap intervals; uses no device."""
    options = arguments.parse(CompareOptions)
    if options.resamples < 100:
        raise UserError(f"compare: --resamples is {options.resamples}: must be at least 100")
    first, task = _evaluation(options.first, options.task)
    second, other = _evaluation(options.second, options.task)
    if task != other:
        raise UserError(
            f"compare: {options.first} is of task {task}, {options.second} of task {other}; give --task for both"
        )
    _check_file("compare", options.out)
    from rich.console import Console

    from jaxguard.evaluate.compare import compare, differing
    from jaxguard.report.differences import differences

    found = compare(first.predictions(), second.predictions(), task, resamples=options.resamples)
    text = json.dumps([dataclasses.asdict(one) for one in found], indent=2) + "\n"
    _write(options.out, text)
    for name, one in (("first", first), ("second", second)):
        print(f"{name}: {one}", file=sys.stderr)
    for difference in differing(first, second):
        print(f"note: {difference}", file=sys.stderr)
    if options.json:
        print(text, end="")
        return
    print(f"first: {options.first}\nsecond: {options.second}", flush=True)
    Console().print(differences(found))


def _evaluation(path: Path, task: Task | None) -> tuple[Evaluation, Task]:
    """Find the evaluation of a path and its task: as given, else that of its run."""
    found = open_evaluation(path)
    folder = found.path.parent
    runs = (folder, folder.parent.parent) if folder.parent.name == FOLDER else (folder,)
    stored = [run for run in runs if (run / "config.json").is_file()]
    return found, task or (load(stored[0]).evaluate.task if stored else "caption")


def _check_file(verb: str, out: Path | None) -> None:
    if out is not None:
        if out.is_dir():
            raise UserError(f"{verb}: --out {out} is a folder; name a file")
        check_writable(out.parent)


def _write(out: Path | None, text: str) -> None:
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, text)


@dataclass(frozen=True)
class ShowOptions:
    run: Positional[Path]
    """Run folder, or folder of one of its evaluations."""
    out: Path | None = None
    """HTML file to write; None is show.html in the run folder."""
    images: int = 12
    """Number of test rows with their answers."""


def show(arguments: Arguments) -> None:
    """Write an HTML report of a run: curves, scores with intervals, example answers; uses no device."""
    options = arguments.parse(ShowOptions)
    if options.images < 0:
        raise UserError(f"show: --images is {options.images}: must be at least 0")
    if not options.run.is_dir():
        raise UserError(f"show: {options.run} is not a run folder")
    one = options.run.resolve().parent.name == FOLDER
    settings = load(options.run.resolve().parents[1] if one else options.run)
    out = options.out or options.run / "show.html"
    _check_file("show", out)
    found = open_evaluation(options.run) if one else chosen(options.run)
    from jaxguard.evaluate.judgement import judge
    from jaxguard.report.run_page import show

    show(settings, out, options.images, found)
    if found is not None:
        print(f"{found}\n{judge(settings, found)}", file=sys.stderr)
    print(out)
