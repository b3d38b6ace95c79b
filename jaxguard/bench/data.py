"""The loader: alone, and as what a step waits for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import jax

from jaxguard.bench.loader import compare
from jaxguard.bench.step import Case, TimedStep
from jaxguard.bench.timing import Timing, milliseconds, publish
from jaxguard.config import Config, to_dict
from jaxguard.data.encode import Encoder
from jaxguard.data.pipeline import train_batches
from jaxguard.report.tables import Column
from jaxguard.train.loop import training_source
from jaxguard.train.setup import load_model
from jaxguard.train.sharding import place_batch

TURN = 10
"""Steps on one batch and steps on fresh ones take turns, so many of each: over longer ones a machine's pace drifts."""


def bench_data(config: Config, rounds: int, out: Path, side: int) -> list[dict[str, Any]]:
    """Time the loader and steps with and without it; data.md and data.json go to `out`. Returns the rows.

    Stall is the share of a real step that the same step on a batch at hand does not take: 1 - synthetic / real, of the
    sums of all steps, which a few slow ones decide, and of the medians, which leave them out. The last rows are of
    photographs at `side` px, without a model (`loader.compare`).
    """
    model = load_model(config)
    encoder = Encoder.from_checkpoint(model.folder)
    batch_size = config.train.batch_size
    batches = train_batches(
        config, encoder, training_source(config), batch_size=batch_size, views=config.objective.views
    )
    step = TimedStep(Case(config, "auto"), model, encoder, next(batches))
    synthetic: list[float] = []
    real: list[float] = []
    for _ in range(-(-rounds // TURN)):
        for seconds, fresh in ((synthetic, False), (real, True)):
            for done in range(TURN + 5):  # the loader's buffer of 4 batches is emptied, and the cache warmed, first
                began = time.perf_counter()
                metrics = step()
                if fresh:  # as in training, the next batch is fetched while the step runs
                    step.batch = place_batch(next(batches), model.mesh)
                jax.block_until_ready(metrics)
                if done >= 5:
                    seconds.append(time.perf_counter() - began)
    alone: list[float] = []
    for _ in range(rounds + 5):
        began = time.perf_counter()
        next(batches)
        alone.append(time.perf_counter() - began)
    alone = alone[5:]
    stall = {"sums": 1 - sum(synthetic) / sum(real), "medians": 1 - median(synthetic) / median(real)}
    rows: list[dict[str, Any]] = [
        {"case": "loader alone", "time": Timing.of(alone), "rows_per_second": batch_size * len(alone) / sum(alone)},
        {"case": "step, batch at hand", "time": Timing.of(synthetic)},
        {"case": "step, loader's batches", "time": Timing.of(real), "stall": stall},
    ]
    for row in rows[1:]:
        row["rows_per_second"] = batch_size / row["time"].median
    rows += compare(config, rounds, side)
    columns = [
        Column("what", lambda row: row["case"]),
        milliseconds("time"),
        Column("rows/s", lambda row: f"{row['rows_per_second']:.1f}"),
        Column("stall (of medians)", _stall),
    ]
    title = f"{config.data.source}, {batch_size} rows a batch, {config.data.threads} threads, {rounds} rounds"
    publish("data", title, rows, columns, out, rounds=rounds, config=to_dict(config))
    return rows


def _stall(row: Mapping[str, Any]) -> str:
    stall = row.get("stall")
    return "-" if stall is None else f"{100 * stall['sums']:.1f}% ({100 * stall['medians']:.1f}%)"
