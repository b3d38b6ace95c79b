"""Benchmark of train steps: one view, two views, dropped patches, a share of the rows; reference and fused head."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxguard.batch import Batch
from jaxguard.bench.flops import peak, step_flops
from jaxguard.bench.timing import megabytes, milliseconds, publish, ratio, take_turns, temporary_bytes
from jaxguard.bench.traced import matrix_flops
from jaxguard.config import Config, ObjectiveConfig, to_dict
from jaxguard.data.encode import Encoder
from jaxguard.data.pipeline import train_batches
from jaxguard.errors import UserError
from jaxguard.experiments.configurations import validate
from jaxguard.models.flops import View
from jaxguard.report.tables import Column
from jaxguard.train.forward import HeadKind
from jaxguard.train.loop import training_source
from jaxguard.train.setup import CompiledStep, Model, load_model, prepare, trace_step
from jaxguard.train.sharding import place_batch
from jaxguard.train.step import StepPlan

PAIRED = ObjectiveConfig(alpha=1.0, cross_view_weight=1.0, entropy_weight=0.5, entropy_max=0.5)
"""Objective with every term, for configurations whose own objective needs one view only."""


@dataclass(frozen=True)
class Case:
    """One variant of the train step."""

    config: Config
    head: HeadKind = "reference"


def cases(config: Config) -> dict[str, Case]:
    """List the compared variants; all else is as in the configuration."""
    objective = config.objective if config.objective.views == 2 else PAIRED
    undefended = dataclasses.replace(config, objective=ObjectiveConfig())
    full = dataclasses.replace(config, objective=objective)

    def kept(share: float, rows: float = 1.0) -> Config:
        view = dataclasses.replace(config.view, mask_fill="drop", mask_share=1 - share, jitter=False, rows=rows)
        return dataclasses.replace(full, view=view)

    return {
        "undefended": Case(undefended),
        "undefended, fused head": Case(undefended, "fused"),
        "two views": Case(full),
        "two views, fused head": Case(full, "fused"),
        "two views, 50% of patches": Case(kept(0.5)),
        "two views, 25% of patches": Case(kept(0.25)),
        "half of the rows, 25% of patches": Case(kept(0.25, rows=0.5)),
    }


class TimedStep:
    """A compiled step that repeats one batch, starting from its last state."""

    def __init__(self, case: Case, model: Model, encoder: Encoder, batch: Batch):
        setup, trainable = prepare(model, case.config.model.trainable, case.config.train)
        self.batch = place_batch(batch, model.mesh)
        began = time.perf_counter()
        self.step = CompiledStep(setup, StepPlan.of(case.config, encoder.eos_id, case.head), self.batch)
        self.compile_seconds = time.perf_counter() - began
        self.state = setup.initial(trainable)

    def __call__(self) -> Any:
        self.state, metrics = self.step(self.state, self.batch)
        return metrics


def first_batch(config: Config, encoder: Encoder) -> Batch:
    """Load the first batch on the host."""
    source, rows = training_source(config), config.train.batch_size
    return next(train_batches(config.data, config.seed, encoder, source, batch_size=rows, view=config.second_view))


def flops(case: Config, model: Model, batch: Batch) -> float:
    """Count the operations of one step on such a batch.

    Counted from shapes if the family does so, else from the matmuls of the traced step.
    """
    patches, length, rows = model.architecture.config.vision.patches, case.data.length, case.train.batch_size
    views = [View(rows, length, patches, case.data.answer_length)]
    if case.objective.views == 2:
        dropped = 0 if batch.kept is None else patches - batch.kept.shape[-1]
        viewed = int(rows * case.view_share)
        views.append(View(viewed, length - dropped, patches - dropped, case.data.answer_length))
    counted = step_flops(model.architecture, case.model.trainable, views)
    if counted is not None:
        return counted
    setup, _ = prepare(model, case.model.trainable, case.train)
    return matrix_flops(trace_step(setup, StepPlan.of(case, 0, "reference"), place_batch(batch, model.mesh)).jaxpr)


def bench_step(config: Config, rounds: int, out: Path) -> list[dict[str, Any]]:
    """Time the variants of a configuration's step; write step.md and step.json to `out`. Returns the rows.

    Raises:
        UserError: A variant is impossible with this model or these sizes.
    """
    chosen = cases(config)
    for name, case in chosen.items():
        try:
            validate(case.config)
        except UserError as error:
            raise UserError(f"bench step: {name}: {error}") from error
    title = f"{config.model.path}, {config.train.batch_size} rows of {config.data.length} tokens, {rounds} rounds"
    rows = measure(chosen, rounds)
    publish("step", title, rows, COLUMNS, out, rounds=rounds, config=to_dict(config))
    return rows


def measure(chosen: Mapping[str, Case], rounds: int) -> list[dict[str, Any]]:
    """Time alternating steps: one row per case, with ratios to the first case of the same model."""
    configs = [case.config for case in chosen.values()]
    models = {config.model.path: load_model(config.model, config.mesh, config.seed) for config in configs}
    encoders = {path: Encoder.from_checkpoint(model.folder) for path, model in models.items()}
    batches = {name: first_batch(case.config, encoders[case.config.model.path]) for name, case in chosen.items()}
    steps, work = {}, {}
    for name, case in chosen.items():
        print(f"compiling {name}", file=sys.stderr)
        path = case.config.model.path
        steps[name] = TimedStep(case, models[path], encoders[path], batches[name])
        work[name] = flops(case.config, models[path], batches[name])
    timings = take_turns(steps, rounds)
    most, devices = peak(jax.devices()[0].device_kind), jax.device_count()
    rows: list[dict[str, Any]] = []
    for name, case in chosen.items():
        base = next(other for other in chosen if chosen[other].config.model.path == case.config.model.path)
        seconds, batch = timings[name].median, batches[name]
        real = float(np.mean(batch.segments > 0))
        rows.append(
            {
                "case": name,
                "step": timings[name],
                "ratio": seconds / timings[base].median,
                "flops": work[name],
                "flops_ratio": work[name] / work[base],
                "rows_per_second": case.config.train.batch_size / seconds,
                "real_tokens_per_second": case.config.train.batch_size * real * case.config.data.length / seconds,
                "padding": 1 - real,
                "flops_per_second": work[name] / seconds,
                "utilisation": None if most is None else work[name] / seconds / (most * devices),
                "compile_seconds": steps[name].compile_seconds,
                "temporary_bytes": temporary_bytes(steps[name].step.compiled),
                "device_peak_bytes": (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
            }
        )
    return rows


COLUMNS = [
    Column("step", lambda row: row["case"]),
    milliseconds("step"),
    ratio("time ratio", "ratio"),
    ratio("FLOPs ratio", "flops_ratio"),
    Column("rows/s", lambda row: f"{row['rows_per_second']:.1f}"),
    Column("real tokens/s", lambda row: f"{row['real_tokens_per_second']:.0f}"),
    Column("padding %", lambda row: f"{100 * row['padding']:.1f}"),
    Column("GFLOP/s", lambda row: f"{row['flops_per_second'] / 1e9:.1f}"),
    ratio("MFU", "utilisation"),
    megabytes("temporary MB", "temporary_bytes"),
    Column("compile s", lambda row: f"{row['compile_seconds']:.1f}"),
]
