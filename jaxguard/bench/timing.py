"""Timing of alternating cases, and output of the benchmarks."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from jaxguard.files import write_text
from jaxguard.report.tables import Column, markdown, terminal

WARM_UP = 3
"""Number of untimed rounds before the timed ones."""


@dataclass(frozen=True)
class Timing:
    """Seconds per call over the rounds."""

    median: float
    p95: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        ordered = sorted(seconds)
        return cls(statistics.median(ordered), ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))])


def take_turns(cases: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, Timing]:
    """Time every case once per round, so that other load on the machine affects all cases alike.

    Args:
        cases: Functions to time, by name; each returns arrays to wait for, or nothing.
        rounds: Number of timed rounds, after `WARM_UP` untimed ones.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for done in range(WARM_UP + rounds):
        for name, case in cases.items():
            began = time.perf_counter()
            jax.block_until_ready(case())
            if done >= WARM_UP:
                seconds[name].append(time.perf_counter() - began)
    return {name: Timing.of(values) for name, values in seconds.items()}


def temporary_bytes(compiled: jax.stages.Compiled) -> int:
    """Peak bytes of temporaries of a compiled function per device, by XLA's analysis."""
    analysis = compiled.memory_analysis()
    return 0 if analysis is None else analysis.temp_size_in_bytes


def machine() -> dict[str, Any]:
    """Describe versions, devices and environment."""
    device = jax.devices()[0]
    return {
        "versions": {name: version(name) for name in ("jaxguard", "jax", "jaxlib", "flax", "optax")},
        "python": platform.python_version(),
        "device": device.device_kind,
        "platform": device.platform,
        "devices": jax.device_count(),
        "cores": os.cpu_count(),
        "environment": {name: os.environ[name] for name in ("XLA_FLAGS", "GLIBC_TUNABLES") if name in os.environ},
        "load": os.getloadavg()[0],
    }


def publish(
    name: str,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[Column],
    out: Path,
    *,
    layout: Callable[..., Table] = terminal,
    **more: Any,
) -> None:
    """Print a table; write it to `out`/NAME.md, and all figures with the machine to `out`/NAME.json."""
    Console().print(layout(rows, columns, title))
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / f"{name}.md", markdown(rows, columns))
    results = {"command": " ".join(sys.argv), **more, "rows": rows, "machine": machine()}
    write_text(out / f"{name}.json", json.dumps(results, indent=2, default=vars) + "\n")


def milliseconds(key: str) -> Column:
    """Make a column with median and 95th percentile of a row's `Timing`."""
    return Column("ms (p95)", lambda row: f"{1e3 * row[key].median:.1f} ({1e3 * row[key].p95:.1f})")


def megabytes(header: str, key: str) -> Column:
    return Column(header, lambda row: f"{row[key] / 1e6:.1f}")


def ratio(header: str, key: str) -> Column:
    return Column(header, lambda row: "-" if row.get(key) is None else f"{row[key]:.2f}")
