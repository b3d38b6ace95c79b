"""The verbs that time and rehearse. Heavy imports are inside the verbs, after the input is checked."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from tyro.conf import Positional

from jaxguard.bench.hardware import COMPILE_ONLY, Hardware
from jaxguard.bench.price import Price, measured_seconds
from jaxguard.cli.arguments import Arguments
from jaxguard.config import Config
from jaxguard.config.files import load
from jaxguard.data.epochs import in_steps
from jaxguard.errors import UserError
from jaxguard.files import check_writable
from jaxguard.train.metrics import read_metrics


@dataclass(frozen=True)
class BenchOptions:
    out: Path = Path("runs/bench")
    """Folder for the table and the JSON."""
    rounds: int = 20
    """Number of timed calls of each case; the cases alternate."""


def bench_step(arguments: Arguments) -> None:
    """Time train steps: one view, two views, dropped patches, a share of the rows."""
    options, settings = _bench(arguments)
    from jaxguard.bench.step import bench_step

    bench_step(settings, options.rounds, options.out)


@dataclass(frozen=True)
class BenchDataOptions(BenchOptions):
    side: int = 336
    """Side of the images, in pixels, for timing the loader without a model (and torch's, if installed)."""


def bench_data(arguments: Arguments) -> None:
    """Time the data loader alone, against torch's, and its effect on train steps."""
    options, rest = arguments.split(BenchDataOptions)
    settings = rest.configuration()
    _checked_bench(options)
    if options.side < 24 or options.side % 24:
        raise UserError(f"bench data: --side is {options.side}: must be a multiple of 24")
    from jaxguard.bench.data import bench_data

    bench_data(settings, options.rounds, options.out, options.side)


def bench_torch(arguments: Arguments) -> None:
    """Time a train step against the same step in torch."""
    options, settings = _bench(arguments)
    from jaxguard.bench.torch_step import bench_torch

    bench_torch(settings, options.rounds, options.out)


@dataclass(frozen=True)
class BenchObjectiveOptions(BenchOptions):
    vocabularies: tuple[int, ...] = (32064, 151936)
    """Vocabulary sizes."""
    pairs: int = 512
    """Number of answer tokens, each in two views."""
    width: int = 256
    """Width of the hidden states."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the hidden states."""


def bench_objective(arguments: Arguments) -> None:
    """Time the token statistics alone: reference and fused implementation."""
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
    """Folder for the table and the JSON."""


def bench_compile(arguments: Arguments) -> None:
    """Time the compilation of a train step against that of a two-layer model; needs no weights."""
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
class CostOptions:
    run: Positional[Path]
    """Run folder, or configuration file with --step_seconds."""
    chips: int
    """Number of chips."""
    price: float
    """Published price of one chip for an hour, in any currency."""
    step_seconds: float | None = None
    """Time of a step; None takes the median of the run's metrics."""


def cost(arguments: Arguments) -> None:
    """Multiply out what a run's steps cost: chips x price x steps x time of a step."""
    options = arguments.parse(CostOptions)
    _check_price("cost", options.price)
    if options.chips < 1:
        raise UserError(f"cost: --chips is {options.chips}: must be at least 1")
    seconds, source = options.step_seconds, "given"
    if seconds is not None and not 0 < seconds < math.inf:
        raise UserError(f"cost: --step_seconds is {seconds}: must be finite and positive")
    settings = in_steps(load(options.run))
    if seconds is None:
        seconds, source = measured_seconds(read_metrics(settings.run_dir / "metrics.jsonl"))
    print(Price(settings.train.steps, seconds, options.chips, options.price, source, least=False))


def _check_price(verb: str, price: float) -> None:
    if not 0 < price < math.inf:
        raise UserError(f"{verb}: --price is {price}: must be finite and positive")


@dataclass(frozen=True)
class RehearseOptions:
    topology: str | None = None
    """A TPU slice ("v5e:4x4") or GPUs ("8xH100"); None takes mesh.hardware of the configuration."""
    search: bool = False
    """Try micro-batches and rematerialisation; recommend the fastest setting that fits."""
    decode: bool = True
    """Compile the decoding of `evaluate` as well."""
    price: float | None = None
    """Price of one chip for an hour: the least cost of the steps is printed."""
    out: Path = Path("runs/rehearsal")
    """Folder for the table and the JSON."""


def rehearse(arguments: Arguments) -> None:
    """Compile runs for hardware you do not have: memory, fit, collectives, lower bounds of times."""
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
    if options.price is not None:
        _check_price("rehearse", options.price)
    if options.search and len(runs) > 1:
        raise UserError("rehearse: --search takes one configuration at a time")
    check_writable(options.out)
    os.environ |= COMPILE_ONLY
    from jaxguard.bench.rehearsal_table import rehearse_runs, search

    if options.search:
        search(*runs[0], options.out)
    else:
        found = rehearse_runs(runs, options.out, decode=options.decode)
        if options.price is not None:
            steps = {one.name: one for one in found if one.seconds}
            for settings, hardware in runs:
                least, source = steps[settings.name].least, "least time, compiled ahead of time"
                price = Price(settings.train.steps, least, hardware.count, options.price, source, least=True)
                print(f"{settings.name} on {hardware.name}: {price}")
