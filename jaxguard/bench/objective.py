"""Benchmark of the token statistics alone: reference and fused implementation, time and memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxguard.bench.timing import megabytes, milliseconds, publish, ratio, take_turns, temporary_bytes
from jaxguard.models.head import Head
from jaxguard.objective import fused
from jaxguard.objective.statistics import PairStatistics, pair_statistics
from jaxguard.report.tables import Column

FIELDS = ("nll_p", "nll_q", "kl_pq", "kl_qp", "entropy_p", "entropy_q")


@dataclass(frozen=True)
class Sizes:
    """Sizes of the benchmark."""

    vocabularies: tuple[int, ...] = (32064, 151936)
    pairs: int = 512
    """Number of answer tokens, each in two views."""
    width: int = 256
    """Width of the hidden states."""
    dtype: str = "float32"


def reference(hidden_p: Array, hidden_q: Array, head: Head, targets: Array) -> PairStatistics:
    """Compute the statistics with the reference implementation, from hidden states."""
    return pair_statistics(head.logits(hidden_p), head.logits(hidden_q), targets)


def gradient(statistics: Callable[..., PairStatistics], *, trained: bool) -> Callable:
    """Make value and gradient of a function of all six statistics with respect to the views (and the head)."""

    def total(views: tuple[Array, Array], head: Head, targets: Array) -> Array:
        found = statistics(*views, head, targets)
        return sum((jnp.square(getattr(found, name)).sum() for name in FIELDS), jnp.zeros(()))

    return jax.value_and_grad(total, (0, 1) if trained else 0)


def bench_objective(sizes: Sizes, rounds: int, out: Path) -> list[dict[str, Any]]:
    """Time both implementations, alternating; write objective.md and objective.json to `out`. Returns the rows."""
    rows: list[dict[str, Any]] = []
    for vocabulary in sizes.vocabularies:
        keys = jax.random.split(jax.random.key(0), 4)
        shape, dtype = (sizes.pairs, sizes.width), jnp.dtype(sizes.dtype)
        views = tuple(jax.random.normal(key, shape, dtype) for key in keys[:2])
        head = Head(jax.random.normal(keys[2], (vocabulary, sizes.width)) * sizes.width**-0.5, vocabulary_axis=0)
        targets = jax.random.randint(keys[3], (sizes.pairs,), 0, vocabulary)
        for trained in (False, True):
            compiled = {
                name: jax.jit(gradient(statistics, trained=trained)).lower(views, head, targets).compile()
                for name, statistics in (("reference", reference), ("fused", fused.pair_statistics))
            }
            run = {name: functools.partial(step, views, head, targets) for name, step in compiled.items()}
            timings = take_turns(run, rounds)
            memory = {name: temporary_bytes(step) for name, step in compiled.items()}
            rule = fused.reference_fits(sizes.pairs, 2, vocabulary, jax.devices()[:1])
            rows += [
                {
                    "vocabulary": vocabulary,
                    "head": "trained" if trained else "frozen",
                    "case": name,
                    "chosen": rule == (name == "reference"),
                    "time": timings[name],
                    "ratio": timings[name].median / timings["reference"].median,
                    "temporary_bytes": memory[name],
                    "memory_ratio": memory[name] / memory["reference"],
                }
                for name in compiled
            ]
    columns = [
        Column("vocabulary", lambda row: str(row["vocabulary"])),
        Column("head", lambda row: row["head"]),
        Column("statistics", lambda row: row["case"] + (" (chosen)" if row["chosen"] else "")),
        milliseconds("time"),
        ratio("time ratio", "ratio"),
        megabytes("temporary MB", "temporary_bytes"),
        ratio("memory ratio", "memory_ratio"),
    ]
    title = f"value and gradient of {sizes.pairs} pairs, width {sizes.width}, {sizes.dtype}, {rounds} rounds"
    publish("objective", title, rows, columns, out, rounds=rounds, sizes=vars(sizes))
    return rows
