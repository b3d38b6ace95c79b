"""Benchmark of the data loader: alone, and its effect on train steps."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxguard.bench.data_loader import compare
from jaxguard.bench.step import Case, TimedStep
from jaxguard.bench.timing import Timing, milliseconds, publish
from jaxguard.config import Config, to_dict
from jaxguard.data.encode import Encoder
from jaxguard.data.pipeline import train_batches
from jaxguard.data.rows import Row
from jaxguard.data.sources import RowSource, parts_of, text_row
from jaxguard.evaluate.measures import bootstrap, ratio
from jaxguard.report.tables import Column
from jaxguard.train.loop import training_source
from jaxguard.train.setup import load_model
from jaxguard.train.sharding import place_batch

DRAINED = 5
"""Warm-up batches: they empty the loader's buffer of four, so that its sustained rate is measured."""

RESAMPLES = 2000
"""Number of bootstrap draws for the interval of the stall."""


class GatedSource:
    """A source that blocks while its gate is closed, to stop the loader during a timed step."""

    def __init__(self, source: RowSource):
        self._source, self.parts = source, parts_of(source)
        self.gate = threading.Event()
        self.gate.set()

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Row:
        self.gate.wait()
        return self._source[index]

    def text(self, index: int) -> Row:
        """As `TextSource.text`; does not block."""
        return text_row(self._source, index)


def bench_data(config: Config, rounds: int, out: Path, side: int) -> list[dict[str, Any]]:
    """Time the loader, and steps with and without it; write data.md and data.json to `out`. Returns the rows.

    Each round runs one step on a ready batch while the loader is stopped, and one step that fetches the next batch
    while it runs, as training does. Stall is 1 - synthetic / real, the share of the second step's time that the first
    does not need: of the sums over all steps, with its 95% bootstrap interval over rounds, and the median over rounds,
    which is robust to a few slow steps. The last rows are photographs at `side` px, without a model
    (`data_loader.compare`).
    """
    model = load_model(config.model, config.mesh, config.seed)
    encoder = Encoder.from_checkpoint(model.folder)
    batch_size, source = config.train.batch_size, GatedSource(training_source(config))
    batches = train_batches(config.data, config.seed, encoder, source, batch_size=batch_size, view=config.second_view)
    step = TimedStep(Case(config, "auto"), model, encoder, next(batches))

    def at_hand() -> float:
        source.gate.clear()
        began = time.perf_counter()
        jax.block_until_ready(step())
        return time.perf_counter() - began

    def fetching() -> float:
        began = time.perf_counter()
        source.gate.set()
        metrics = step()
        step.batch = place_batch(next(batches), model.mesh)
        jax.block_until_ready(metrics)
        return time.perf_counter() - began

    synthetic, real = [], []
    for done in range(DRAINED + rounds):
        first, second = (
            (at_hand, fetching) if done % 2 else (fetching, at_hand)
        )  # the order alternates: the first may be slower
        seconds = {first: first(), second: second()}
        if done >= DRAINED:
            synthetic.append(seconds[at_hand])
            real.append(seconds[fetching])
    source.gate.set()
    alone: list[float] = []
    for _ in range(DRAINED + rounds):
        began = time.perf_counter()
        next(batches)
        alone.append(time.perf_counter() - began)
    alone = alone[DRAINED:]
    rows: list[dict[str, Any]] = [
        {"case": "loader alone", "time": Timing.of(alone), "rows_per_second": batch_size * len(alone) / sum(alone)},
        {"case": "step, ready batch", "time": Timing.of(synthetic)},
        {"case": "step, batches of the loader", "time": Timing.of(real), "stall": stall(synthetic, real)},
    ]
    for row in rows[1:]:
        row["rows_per_second"] = batch_size / row["time"].median
    rows += compare(config, rounds, side)
    columns = [
        Column("case", lambda row: row["case"]),
        milliseconds("time"),
        Column("rows/s", lambda row: f"{row['rows_per_second']:.1f}"),
        Column("stall (interval; median)", _described),
    ]
    title = f"{config.data.source}, {batch_size} rows a batch, {config.data.threads} threads, {rounds} rounds"
    publish("data", title, rows, columns, out, rounds=rounds, config=to_dict(config))
    return rows


def stall(synthetic: Sequence[float], real: Sequence[float]) -> dict[str, float]:
    """Compute the stall in percent from paired steps: of their sums, with its interval, and the median over pairs."""
    without, beside = np.array(synthetic), np.array(real)
    sums = bootstrap({"stall": ratio(beside - without, beside)}, resamples=RESAMPLES)["stall"]
    median = 100 * float(np.median(1 - without / beside))
    return {"sums": sums.value, "low": sums.low, "high": sums.high, "median": median}


def _described(row: Mapping[str, Any]) -> str:
    if "stall" not in row:
        return "-"
    return "{sums:.1f}% ({low:.1f} to {high:.1f}; {median:.1f}%)".format(**row["stall"])
