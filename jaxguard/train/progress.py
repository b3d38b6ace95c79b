"""Progress of a run: a progress bar or lines on the terminal, and metrics.jsonl."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TextIO

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jaxguard.files import write_text


class Reporter:
    """Progress of `steps` steps that starts at `start`; metrics beyond `start` in an old file are dropped.

    A `silent` one, of a process that is not the main one, prints and writes nothing.
    """

    def __init__(self, run: Path, *, steps: int, start: int, rows: int, silent: bool = False):
        self._path = run / "metrics.jsonl"
        self._steps, self._rows = steps, rows
        self._step, self._time = start, time.perf_counter()
        self._file: TextIO | None = None
        self._bar: Progress | None = None
        if silent:
            return
        self._trim(start)
        self._file = self._path.open("a")
        if sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[note]}"))
            self._task = self._bar.add_task("train", total=steps, completed=start, note="")

    def __enter__(self) -> Reporter:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        if self._file:
            self._file.close()

    def say(self, text: str) -> None:
        """One line for people."""
        if self._file:
            print(text, file=sys.stderr, flush=True)

    def restart_clock(self) -> None:
        """Leave what happened so far (compilation) out of the throughput."""
        self._time = time.perf_counter()

    def record(self, step: int, metrics: dict[str, float]) -> None:
        """A line of metrics.jsonl about `step`."""
        if self._file:
            self._file.write(json.dumps({"step": step, **metrics}) + "\n")
            self._file.flush()

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Record metrics of `step` (1-based: steps done), with the throughput since the last call."""
        now = time.perf_counter()
        seconds = (now - self._time) / max(1, step - self._step)
        self._step, self._time = step, now
        self.record(step, {**metrics, "step_seconds": seconds})
        rate, left = self._rows / seconds, (self._steps - step) * seconds
        note = f"loss {metrics['loss']:.3f}  ce {metrics['ce']:.3f}  {rate:.0f} examples/s"
        if self._bar:
            self._bar.update(self._task, completed=step, note=note)
        else:
            self.say(f"step {step}/{self._steps}  {note}  {left:.0f} s left")

    def _trim(self, start: int) -> None:
        if not self._path.exists():
            return
        kept = []
        for line in self._path.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= start:
                    kept.append(line)
            except ValueError:  # the line that a kill cut short
                break
        write_text(self._path, "".join(line + "\n" for line in kept))
