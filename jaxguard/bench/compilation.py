"""Time to trace and compile a train step, against the same step of a two-layer model. Needs no weights."""

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
from jaxguard.train.step import StepPlan

LAYERS = 2


def compiled_step(config: Config, folder: Path) -> CompiledStep:
    """Compile the train step of the model that config.json in `folder` describes."""
    setup, _ = prepare(describe_model(config.model, config.mesh, folder), config.model.trainable, config.train)
    batch = describe_batch(config.data, config.second_view, setup.model, config.train.batch_size)
    return CompiledStep(setup, StepPlan.of(config, END_TOKEN), batch)


def bench_compile(config: Config, out: Path) -> list[dict[str, Any]]:
    """Time both; write compile.md and compile.json to `out`. Returns the rows.

    Raises:
        UserError: The model or the sizes are impossible.
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
    """Count the instructions of the compiled program: a machine-independent measure of compilation."""
    text = step.compiled.as_text()
    assert text is not None
    return sum(" = " in line for line in text.splitlines())
