"""The verbs that train and use a model. Heavy imports are inside the verbs, after the input is checked."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jaxguard.cli.arguments import Arguments
from jaxguard.config import AttackConfig, Config, to_dict
from jaxguard.config.files import load
from jaxguard.errors import UserError
from jaxguard.experiments.configurations import load_model, validate
from jaxguard.files import check_writable

if TYPE_CHECKING:
    from jaxguard.evaluate.run import Evaluator


def preflight(arguments: Arguments) -> None:
    """Check that a run would find data, weights, a writable run folder and disk space here; `train` does so first."""
    settings = arguments.configuration()
    check_writable(settings.run_dir)
    from jaxguard.train.preflight import preflight

    print("\n".join(preflight(settings)))


def config(arguments: Arguments) -> None:
    """Print the resolved values of a configuration as JSON."""
    print(json.dumps(to_dict(arguments.configuration(epochs=False)), indent=2))


def train(arguments: Arguments) -> None:
    """Fine-tune a model into a run folder; the same command resumes an interrupted run."""
    settings = arguments.configuration()
    check_writable(settings.run_dir)
    from jaxguard import processes
    from jaxguard.audit import guard
    from jaxguard.train.preflight import preflight

    processes.connect()
    for line in preflight(settings):
        if processes.is_main():
            print(line, file=sys.stderr)
    run = guard.train(settings)
    if processes.is_main():
        print(run)


@dataclass(frozen=True)
class EvaluateOptions:
    canaries: bool = False
    """Try the triggers of every attack, one after another, and print a table."""
    json: bool = False
    """Print the table of --canaries as JSON."""


def evaluate(arguments: Arguments) -> None:
    """Decode and score the test rows with a trained run (FILE or run folder), and give a verdict on the model."""
    options, rest = arguments.split(EvaluateOptions)
    if options.json and not options.canaries:
        raise UserError("evaluate: --json goes with --canaries; without it the scores are JSON already")
    settings = rest.configuration()
    check_writable(settings.run_dir)
    if options.canaries:  # the target, also of a run that has none, must fit into an answer
        validate(dataclasses.replace(settings, attack=AttackConfig("badnets", target=settings.attack.target)))
    from jaxguard import processes
    from jaxguard.evaluate import java
    from jaxguard.evaluate.run import Evaluator

    processes.connect()
    evaluator = Evaluator(settings, java=java.find())
    if options.canaries:
        _canaries(evaluator, settings, options)
        return
    scores, found = evaluator.test()
    if processes.is_main():
        from jaxguard.evaluate.judgement import judge
        from jaxguard.evaluate.scores import to_text

        judgement = judge(load(settings.run_dir), found)
        about = {} if found.identity is None else {"evaluation": dataclasses.asdict(found.identity)}
        print(to_text(scores, about | dataclasses.asdict(judgement)), end="", flush=True)
        print(f"{found}\n{judgement}\nwrote {found.path.parent}", file=sys.stderr)


def _canaries(evaluator: Evaluator, settings: Config, options: EvaluateOptions) -> None:
    from rich.console import Console

    from jaxguard import processes
    from jaxguard.evaluate.canaries import try_canaries
    from jaxguard.evaluate.judgement import judge
    from jaxguard.report.canary_table import COLUMNS, canary_rows
    from jaxguard.report.tables import terminal

    found = try_canaries(evaluator, settings.attack)
    if not processes.is_main():
        return
    rows, tried = canary_rows(found), [one.evaluation for one in found if one.evaluation is not None]
    if options.json:
        print(json.dumps(rows, indent=2), flush=True)
    else:
        Console().print(terminal(rows, COLUMNS, f"{settings.run_dir}, target: {settings.attack.target}"))
    if tried:
        print(judge(load(settings.run_dir), tried[0]), file=sys.stderr)


@dataclass(frozen=True)
class GenerateOptions:
    image: Path
    """Image file: BMP, GIF, JPEG, PNG, PPM, TIFF or WebP."""
    prompt: str
    """Question, without chat format."""


def generate(arguments: Arguments) -> None:
    """Answer one prompt about one image; FILE is a run, a checkpoint folder or a shipped checkpoint."""
    options, rest = arguments.split(GenerateOptions)
    settings = rest.configuration(load_model)
    if not options.image.is_file():
        raise UserError(f"generate: --image {options.image} does not exist")
    from jaxguard.evaluate import run

    print(run.generate(settings, options.image, options.prompt))


@dataclass(frozen=True)
class ExportOptions:
    out: Path
    """Checkpoint folder to write."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float16"
    """Type of the written weights."""
    adapter: bool = False
    """Write the LoRA adapters only, in the format of peft, instead of merging them."""


def export(arguments: Arguments) -> None:
    """Write a trained run (FILE or run folder) as a checkpoint that transformers can load."""
    options, rest = arguments.split(ExportOptions)
    settings = rest.configuration()
    check_writable(options.out)
    from jaxguard.train.export import export

    export(settings, options.out, options.dtype, adapter=options.adapter)
