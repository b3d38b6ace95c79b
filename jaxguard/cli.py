"""The command line: verbs only. What is heavy is imported inside its verb, after the input was checked."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from tyro.conf import Positional, arg

from jaxguard import __version__
from jaxguard.arguments import HELP, Arguments
from jaxguard.bench.hardware import COMPILE_ONLY, Hardware
from jaxguard.config import Config, DataConfig, suggestion, to_dict
from jaxguard.errors import Failure, Preempted, UserError
from jaxguard.experiments import check_writable, load_grid, load_model
from jaxguard.grid import Cost, plan, run, run_cost, select
from jaxguard.scoring import compare, score, show


def config(arguments: Arguments) -> None:
    """Print the resolved values of a configuration as JSON."""
    print(json.dumps(to_dict(arguments.configuration()), indent=2))


def data_list(arguments: Arguments) -> None:
    """List the data sets that can be built."""
    arguments.parse(NoOptions)
    from jaxguard.data.builders import SOURCES
    from jaxguard.data.originals import ORIGINALS

    print("\n".join([*SOURCES, *(f"{name} --from DIR" for name in ORIGINALS)]))


@dataclass(frozen=True)
class NoOptions:
    """A verb that takes nothing."""


@dataclass(frozen=True)
class BuildOptions:
    data_set: Positional[str]
    """One of `jaxguard data list`."""
    original: Annotated[str | None, arg(name="from")] = None
    """Folder, or bucket path, of the files that the data set is distributed in, where it is not an embedded one."""
    root: Path = Path("data")
    """Where built data sets lie."""
    name: str | None = None
    """How it is called there, where not as the data set."""
    threads: int = 4
    """That read images."""


def data_build(arguments: Arguments) -> None:
    """Build a data set as ArrayRecord files; the same command resumes an interrupted build."""
    options = arguments.parse(BuildOptions)
    check_writable(options.root)
    _check_threads(options.threads)
    from jaxguard.data import builders

    if options.original is None:
        if options.name is not None:
            raise UserError("data build: --name goes with --from; embedded data sets keep their names")
        print(builders.build(options.data_set, options.root))
        return
    original = _original(options.original)
    print(builders.build_original(options.data_set, original, options.root, options.name, options.threads))


@dataclass(frozen=True)
class CheckOptions:
    folder: Positional[str]
    """A data set in its original files, or a built one; local, or a bucket path."""
    original: Annotated[str | None, arg(name="as")] = None
    """Which of `jaxguard data list` its files are, where they do not tell."""
    model: str | None = None
    """A checkpoint whose tokens the rows are counted in; without one, their lengths are not looked at."""
    length: int = DataConfig.length
    """As data.length."""
    answer_length: int = DataConfig.answer_length
    """As data.answer_length."""
    threads: int = 4
    """That read images."""


def data_check(arguments: Arguments) -> None:
    """Look at every row and image of a data set; what is wrong is counted and shown (exit code 2)."""
    options = arguments.parse(CheckOptions)
    _check_threads(options.threads)
    from jaxguard.data.check import Budget, check
    from jaxguard.data.encode import Encoder
    from jaxguard.models import zoo

    budget = None
    if options.model is not None:
        budget = Budget(Encoder(zoo.resolve(options.model)), options.length, options.answer_length)
    counts, problems = check(_original(options.folder), options.original, budget, options.threads)
    print(f"{options.folder}: " + (", ".join(f"{count} {split}" for split, count in counts.items()) or "no") + " rows")
    if problems:
        print(problems.report())
        raise UserError(f"{options.folder} has {len(problems)} problems, as told above")


def _original(folder: str) -> Any:
    """A folder that data sets are read from."""
    from etils import epath

    try:
        path = epath.Path(folder)
        found = path.is_dir()
    except (ImportError, ValueError, OSError) as error:
        raise UserError(f"{folder} cannot be read ({error})") from error
    if not found:
        raise UserError(f"{folder} is not a folder")
    return path


def _check_threads(threads: int) -> None:
    if threads < 1:
        raise UserError(f"--threads is {threads}: must be at least 1")


@dataclass(frozen=True)
class PoisonOptions:
    out: Path | None = None
    """Where to write the poisoned training rows of a configuration, and their manifest."""
    verify: Path | None = None
    """Instead: a folder written so, to check against its manifest."""


def poison(arguments: Arguments) -> None:
    """Write a configuration's poisoned rows (FILE [overrides] --out DIR), or check them (--verify DIR)."""
    options, rest = arguments.split(PoisonOptions)
    if options.verify is not None:
        rest.parse(NoOptions)
        if options.out is not None:
            raise UserError("poison: --verify reads and --out writes; give one of them")
        from jaxguard.attacks.poison import verify

        manifest = verify(options.verify)
        print(f"{options.verify}: {len(manifest['poisoned'])} of {manifest['rows']} rows poisoned, every hash agrees")
        return
    settings = rest.configuration()
    if options.out is None:
        raise UserError("poison: give --out DIR, the folder to write")
    check_writable(options.out)
    from jaxguard.attacks.poison import write_poisoned

    manifest = write_poisoned(settings, options.out)
    print(f"{options.out}: {len(manifest['poisoned'])} of {manifest['rows']} rows poisoned")


@dataclass(frozen=True)
class GalleryOptions:
    out: Path = Path("gallery.png")
    """The picture."""
    source: str = "scenes/caption"
    """A built data set: its first test rows are shown."""
    root: Path = Path("data")
    """Where built data sets lie, and what attacks have learnt."""
    images: int = 2
    """How many rows."""


def gallery(arguments: Arguments) -> None:
    """Draw all attacks on the same images: original, triggered, their difference."""
    options = arguments.parse(GalleryOptions)
    if options.out.suffix != ".png" or options.out.is_dir():
        raise UserError(f"gallery: --out {options.out} names no .png file")
    if options.images < 1:
        raise UserError(f"gallery: --images is {options.images}: must be at least 1")
    check_writable(options.out.parent)
    from jaxguard.gallery import gallery

    gallery(options.out, options.source, options.root, options.images)


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
    """A picture in any format that Pillow reads."""
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
class BenchOptions:
    out: Path = Path("runs/bench")
    """Where the table and the JSON go."""
    rounds: int = 20
    """Timed calls of each, taking turns."""


def bench_step(arguments: Arguments) -> None:
    """Time train steps side by side: one view, two, dropped patches, some rows (FILE [overrides] first)."""
    options, settings = _bench(arguments)
    from jaxguard.bench.step import bench_step

    bench_step(settings, options.rounds, options.out)


@dataclass(frozen=True)
class BenchDataOptions(BenchOptions):
    side: int = 336
    """Of the images at which the loader is timed without a model, beside torch where that is installed."""


def bench_data(arguments: Arguments) -> None:
    """Time the loader, alone and beside torch's, and how long steps wait for it (FILE [overrides] first)."""
    options, rest = arguments.split(BenchDataOptions)
    settings = rest.configuration()
    _checked_bench(options)
    if options.side < 24 or options.side % 24:
        raise UserError(f"bench data: --side is {options.side}: must be a multiple of 24")
    from jaxguard.bench.data import bench_data

    bench_data(settings, options.rounds, options.out, options.side)


def bench_torch(arguments: Arguments) -> None:
    """Time a train step against the same one in torch (FILE [overrides] first)."""
    options, settings = _bench(arguments)
    from jaxguard.bench.torch_step import bench_torch

    bench_torch(settings, options.rounds, options.out)


@dataclass(frozen=True)
class BenchObjectiveOptions(BenchOptions):
    vocabularies: tuple[int, ...] = (32064, 151936)
    pairs: int = 512
    """Tokens, each in two views."""
    width: int = 256
    """Of the hidden states."""
    dtype: Literal["float32", "bfloat16"] = "float32"


def bench_objective(arguments: Arguments) -> None:
    """Time the answers' statistics alone, plain and fused."""
    options = _checked_bench(arguments.parse(BenchObjectiveOptions))
    sizes = (*options.vocabularies, options.pairs, options.width)
    if min(sizes) < 1:
        raise UserError(f"bench objective: sizes must be at least 1, got {min(sizes)}")
    from jaxguard.bench.objective import Sizes, bench_objective

    bench_objective(
        Sizes(options.vocabularies, options.pairs, options.width, options.dtype), options.rounds, options.out
    )


@dataclass(frozen=True)
class BenchCompileOptions:
    out: Path = Path("runs/bench")
    """Where the table and the JSON go."""


def bench_compile(arguments: Arguments) -> None:
    """Time compiling a train step against one of two layers; no weights (FILE [overrides] first)."""
    options, rest = arguments.split(BenchCompileOptions)
    settings = rest.configuration()
    check_writable(options.out)
    from jaxguard.bench.compilation import bench_compile

    bench_compile(settings, options.out)


def _bench(arguments: Arguments) -> tuple[BenchOptions, Config]:
    options, rest = arguments.split(BenchOptions)
    return _checked_bench(options), rest.configuration()


Bench = TypeVar("Bench", bound=BenchOptions)


def _checked_bench(options: Bench) -> Bench:
    if options.rounds < 1:
        raise UserError(f"--rounds is {options.rounds}: must be at least 1")
    check_writable(options.out)
    return options


@dataclass(frozen=True)
class RehearseOptions:
    topology: str | None = None
    """A TPU slice ("v5e:4x4") or GPUs ("8xH100"), where it is not the configuration's mesh.hardware."""
    search: bool = False
    """Try micro-batches and rematerialisation, and recommend the fastest that fits."""
    decode: bool = True
    """Compile the decoding of `evaluate` too."""
    out: Path = Path("runs/rehearsal")
    """Where the table and the JSON go."""


def rehearse(arguments: Arguments) -> None:
    """Compile runs for hardware that is not here: what fits, memory, exchanges, times (FILE ... [overrides] first)."""
    words = list(arguments.tokens)
    count = next((number for number, word in enumerate(words) if word.startswith("-")), len(words))
    options, rest = replace(arguments, tokens=words[count:]).split(RehearseOptions)
    files = words[:count] or [""]
    runs = []
    for file in files:
        settings = replace(rest, tokens=[file, *rest.tokens] if file else rest.tokens).configuration()
        name = options.topology or settings.mesh.hardware
        if name is None:
            raise UserError(f"rehearse: {file} names no mesh.hardware; give --topology, such as v5e:4x4 or 8xH100")
        runs.append((settings, Hardware.parse(name)))
    if options.search and len(runs) > 1:
        raise UserError("rehearse: --search takes one configuration at a time")
    check_writable(options.out)
    os.environ |= COMPILE_ONLY
    from jaxguard.bench.rehearsals import rehearse_runs, search

    if options.search:
        search(*runs[0], options.out)
    else:
        rehearse_runs(runs, options.out, decode=options.decode)


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
