"""The command line: verbs only. What is heavy is imported inside its verb, after the input was checked."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from jaxguard import __version__
from jaxguard.arguments import HELP, Arguments
from jaxguard.config import suggestion, to_dict
from jaxguard.errors import Failure, Preempted, UserError
from jaxguard.experiments import check_writable, load_grid, load_model
from jaxguard.grid import Cost, plan, run, run_cost, select
from jaxguard.verbs.bench import bench_compile, bench_data, bench_objective, bench_step, bench_torch, rehearse
from jaxguard.verbs.data import data_build, data_check, data_list, gallery, poison
from jaxguard.verbs.scoring import compare, score, show


def config(arguments: Arguments) -> None:
    """Print the resolved values of a configuration as JSON."""
    print(json.dumps(to_dict(arguments.configuration()), indent=2))


def train(arguments: Arguments) -> None:
    """Fine-tune a model into a run folder; the same command resumes an interrupted run."""
    settings = arguments.configuration()
    check_writable(settings.run_dir)
    from jaxguard import processes
    from jaxguard.train import loop

    processes.connect()
    run = loop.train(settings)
    if processes.first():
        print(run)


def evaluate(arguments: Arguments) -> None:
    """Decode and score the test rows with a trained run (its configuration file, or its folder)."""
    settings = arguments.configuration()
    check_writable(settings.run_dir)
    from jaxguard import processes
    from jaxguard.evaluate import java, run

    processes.connect()
    run.evaluate(settings, java=java.find())
    if processes.first():
        print((settings.run_dir / "scores.json").read_text(), end="")


@dataclass(frozen=True)
class GenerateOptions:
    image: Path
    """A picture: BMP, GIF, JPEG, PNG, PPM, TIFF or WebP."""
    prompt: str
    """The question, without chat format."""


def generate(arguments: Arguments) -> None:
    """Answer one prompt about one image with a run or a checkpoint (its folder [overrides] first)."""
    options, rest = arguments.split(GenerateOptions)
    settings = rest.configuration(load_model)
    if not options.image.is_file():
        raise UserError(f"generate: --image {options.image} does not exist")
    from jaxguard.evaluate import run

    print(run.generate(settings, options.image, options.prompt))


@dataclass(frozen=True)
class ExportOptions:
    out: Path
    """The checkpoint folder to write."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float16"
    adapter: bool = False
    """Write the LoRA adapters alone, as peft loads them, instead of merging them."""


def export(arguments: Arguments) -> None:
    """Write a trained run (its configuration file, or its folder) as a checkpoint that transformers loads."""
    options, rest = arguments.split(ExportOptions)
    settings = rest.configuration()
    check_writable(options.out)
    from jaxguard.train.export import export

    export(settings, options.out, options.dtype, adapter=options.adapter)


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
    family: Literal["llava", "blip2", "idefics"] = "llava"
    """Which of the shipped models."""
    out: Path | None = None
    """Where the runs, results.json and the picture go: runs/demo, for another family runs/demo-FAMILY."""


def demo(arguments: Arguments) -> None:
    """Plant a backdoor in a small model, then fine-tune with the defence on: a table and a picture."""
    options = arguments.parse(DemoOptions)
    out = options.out or Path("runs/demo" if options.family == "llava" else f"runs/demo-{options.family}")
    check_writable(out)
    from jaxguard.demo import demo

    demo(options.task, out, options.family)


VERBS: dict[str, Callable[[Arguments], None]] = {
    "config": config,
    "data list": data_list,
    "data build": data_build,
    "data check": data_check,
    "poison": poison,
    "gallery": gallery,
    "train": train,
    "evaluate": evaluate,
    "score": score,
    "compare": compare,
    "show": show,
    "generate": generate,
    "export": export,
    "table": table,
    "demo": demo,
    "bench step": bench_step,
    "bench objective": bench_objective,
    "bench data": bench_data,
    "bench torch": bench_torch,
    "bench compile": bench_compile,
    "rehearse": rehearse,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: the words behind `jaxguard`; those of the process where absent.

    Returns:
        The exit code: 0 done, 1 part of the work failed, 2 bad input, 75 preempted with the checkpoint saved,
        130 interrupted, 141 nobody reads.
    """
    try:
        _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except UserError as error:
        return _stop(2, f"error: {error}")
    except Failure as error:
        return _stop(1, f"error: {error}")
    except Preempted as note:
        return _stop(75, str(note))
    except KeyboardInterrupt:
        return _stop(130, "interrupted")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at exit
        return 141
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return _stop(2, f"error: {error.strerror} ({error.filename or 'while writing'}); make room and run it again")
    return 0


def _run(words: Sequence[str]) -> None:
    for count in (2, 1):
        name = " ".join(words[:count])
        if name in VERBS:
            return VERBS[name](Arguments(name, VERBS[name].__doc__ or "", words[count:]))
    if any(word in HELP for word in words):
        return print(_overview())
    if "--version" in words:
        return print(__version__)
    if not words:
        raise UserError(f"give a verb: {', '.join(VERBS)}")
    group = [verb for verb in VERBS if verb.split()[0] == words[0]]
    if group:
        raise UserError(f"{words[0]}: give one of {', '.join(group)}")
    raise UserError(f"unknown verb {words[0]!r}{suggestion(words[0], VERBS) or '; one of ' + ', '.join(VERBS)}")


def _overview() -> str:
    rows = "\n".join(f"  {name:<15} {verb.__doc__}" for name, verb in VERBS.items())
    return f"usage: jaxguard VERB ... (jaxguard VERB --help tells more)\n\n{rows}"


def _stop(code: int, message: str) -> int:
    print("jaxguard:", " ".join(message.split("\n")), file=sys.stderr)
    return code
