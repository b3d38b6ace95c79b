"""The verbs that train and use a model. Heavy imports are inside the verbs, after the input is checked."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxguard.cli.arguments import Arguments
from jaxguard.config import to_dict
from jaxguard.errors import UserError
from jaxguard.experiments.configurations import load_model
from jaxguard.files import check_writable


def config(arguments: Arguments) -> None:
    """Print the resolved values of a configuration as JSON."""
    print(json.dumps(to_dict(arguments.configuration()), indent=2))


def train(arguments: Arguments) -> None:
    """Fine-tune a model into a run folder; the same command resumes an interrupted run."""
    settings = arguments.configuration()
    check_writable(settings.run_dir)
    from jaxguard import processes
    from jaxguard.audit import guard

    processes.connect()
    run = guard.train(settings)
    if processes.is_main():
        print(run)


def evaluate(arguments: Arguments) -> None:
    """Decode and score the test rows with a trained run (FILE or run folder)."""
    settings = arguments.configuration()
    check_writable(settings.run_dir)
    from jaxguard import processes
    from jaxguard.evaluate import java
    from jaxguard.evaluate.identity import SCORES
    from jaxguard.evaluate.run import Evaluator

    processes.connect()
    _, found = Evaluator(settings, java=java.find()).test()
    if processes.is_main():
        print(found, file=sys.stderr)
        print((found.path.parent / SCORES).read_text(), end="")


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
