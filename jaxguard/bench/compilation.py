"""How long a train step takes to trace and compile, beside the same step of a model of two layers. No weights."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jaxguard.bench.rehearsal import END_TOKEN, describe_batch
from jaxguard.bench.timing import publish, ratio
from jaxguard.config import Config, to_dict
from jaxguard.files import read_object
from jaxguard.models import folders
from jaxguard.models.families.registry import open_family
from jaxguard.report.tables import Column
from jaxguard.train.setup import CompiledStep, describe_model, prepare

LAYERS = 2


def compiled_step(config: Config, folder: Path) -> CompiledStep:
    """The train step of the model that config.json in `folder` describes."""
    setup, _ = prepare(config, describe_model(config, folder))
    batch = describe_batch(config, setup.model, rows=config.train.batch_size, views=config.objective.views)
    return CompiledStep(config, setup, END_TOKEN, batch)


def bench_compile(config: Config, out: Path) -> list[dict[str, Any]]:
    """Time both; compile.md and compile.json go to `out`. Returns the rows.

    Raises:
        UserError: the model or these sizes are not possible.
    """
    whole = folders.describe(config.model.path)
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory() as scratch:
        values = read_object(whole / "config.json")
        shallow = open_family(values, whole).shallow(values, LAYERS)
        (Path(scratch) / "config.json").write_text(json.dumps(shallow))
        for name, folder in ((f"{LAYERS} layers", Path(scratch)), ("all layers", whole)):
            print(f"compiling {name}", file=sys.stderr)
            began = time.perf_counter()
            step = compiled_step(config, folder)
            seconds = time.perf_counter() - began
            rows.append({"case": name, "seconds": seconds, "instructions": instructions(step)})
    for row in rows:
        row |= {f"{key}_ratio": row[key] / rows[0][key] for key in ("seconds", "instructions")}
    columns = [
        Column("model", lambda row: row["case"]),
        Column("trace and compile s", lambda row: f"{row['seconds']:.1f}"),
        ratio("time ratio", "seconds_ratio"),
        Column("instructions", lambda row: str(row["instructions"])),
        ratio("instructions ratio", "instructions_ratio"),
    ]
    title = f"{config.model.path}, {config.model.trainable}, {config.train.batch_size} rows of {config.data.length}"
    publish("compile", title, rows, columns, out, config=to_dict(config))
    return rows


def instructions(step: CompiledStep) -> int:
    """Of the program that XLA made: what it takes to compile, however fast the machine is."""
    text = step.compiled.as_text()
    assert text is not None
    return sum(" = " in line for line in text.splitlines())
