"""Checkpoints of a run: parameters, optimizer and data position, saved in the background, never half-visible."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from orbax.checkpoint import v1 as ocp

from jaxguard import processes
from jaxguard.config import Checkpoint, TrainConfig
from jaxguard.errors import UserError
from jaxguard.models.architecture import Parameters
from jaxguard.models.family import Shapes
from jaxguard.train.state import TrainState

FOLDER = "checkpoints"
ITEMS = ("parameters", "optimizer", "data")
"""Read apart: evaluation and export need the first alone. The second holds the step count too. An objective that
remembers rows adds `memory`."""


class Checkpoints:
    """The checkpoints of one run folder. Use as a context manager: leaving it waits for saves under way."""

    def __init__(self, run: Path, train: TrainConfig | None = None):
        """Open a run's checkpoints.

        Args:
            run: the run folder.
            train: when to save and what to keep; None only reads, and leaves saves of other processes alone.
        """
        policies = ocp.training.preservation_policies
        kept = policies.AnyPreservationPolicy(
            [
                policies.LatestN(train.keep if train else None),
                policies.BestN(
                    get_metric_fn=_validation,
                    reverse=True,  # the lowest is the best
                    n=train.keep_best if train else None,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        if train and processes.is_main():
            _set_aside(run / FOLDER)
        processes.broadcast_from_main(True)  # none looks before that is done
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs the traceback of what it then raises
        self._orbax = ocp.training.Checkpointer(
            (run / FOLDER).resolve(),
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=kept,
            cleanup_tmp_directories=train is not None,
        )
        self._train, self._saved = train, time.monotonic()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._failures():
            self._orbax.close()

    @property
    def latest(self) -> int | None:
        """Newest complete step; None if there is none."""
        return self._step("newest", ITEMS)

    def due(self, step: int, *, synchronised: bool) -> bool:
        """Return True if this step is to be saved: every `save_every` steps, and `save_minutes` after the last save.

        Minutes are those of process 0. The others ask it only if `synchronised`: when all wait for each other anyway.
        """
        if self._train is None or step % self._train.save_every == 0:
            return self._train is not None
        minutes = self._train.save_minutes
        return (
            synchronised
            and minutes is not None
            and bool(processes.broadcast_from_main(time.monotonic() - self._saved > 60 * minutes))
        )

    def save(self, step: int, state: TrainState, position: dict[str, Any], validation: float | None = None) -> None:
        """Start saving; returns once the arrays are copied off the devices. A failure surfaces at the next call.

        Raises:
            UserError: this save or the one before could not be written; older checkpoints stay.
        """
        items: dict[str, Any] = {
            "parameters": state.parameters,
            "optimizer": {"step": state.step, "moments": state.optimizer},
            "data": position,
        }
        if state.memory is not None:
            items["memory"] = state.memory
        with self._failures():
            self._orbax.save_checkpointables_async(
                step,
                items,
                metrics=None if validation is None else {"validation": validation},
            )
        self._saved = time.monotonic()

    def wait(self) -> None:
        """Wait until every save is on disk."""
        with self._failures():
            self._orbax.wait()

    def restore(self, abstract: TrainState, step: int | None = None) -> tuple[TrainState, dict[str, Any]]:
        """Load the newest state, placed as `abstract` (any mesh, any number of processes), and the data position.

        Args:
            abstract: shapes and placements.
            step: one that all processes agree on, where there are several.

        Raises:
            UserError: there is none, or it holds other arrays than `abstract`.
        """
        optimizer = {"step": abstract.step, "moments": abstract.optimizer}
        wanted: dict[str, Any] = {"parameters": abstract.parameters, "optimizer": optimizer, "data": None}
        if abstract.memory is not None:
            wanted["memory"] = abstract.memory
        loaded = self._load(self._step("newest", ITEMS) if step is None else step, wanted, "complete checkpoint")
        optimizer = loaded["optimizer"]
        state = TrainState(optimizer["step"], loaded["parameters"], optimizer["moments"], loaded.get("memory"))
        return state, loaded["data"]

    def evaluable(self, which: Checkpoint) -> int:
        """Step of the newest or best checkpoint whose parameters can be loaded, the same on every process.

        Raises:
            UserError: there is none.
        """
        step = processes.broadcast_from_main(self._step(which, ITEMS[:1]) or 0)  # training may be adding more
        if not step:
            best = "checkpoint with a validation loss (train.validation)"
            kind = "complete checkpoint" if which == "newest" else best
            raise UserError(f"{self._orbax.directory} holds no {kind}; train first")
        return step

    def parameters(self, abstract: Shapes, which: Checkpoint | int) -> Parameters:
        """Load the trained parameters alone, of the newest or best checkpoint or of a step, placed as `abstract`.

        Raises:
            UserError: there are none, or others than `abstract`.
        """
        step = which if isinstance(which, int) else self.evaluable(which)
        return self._load(step, {"parameters": abstract}, "complete checkpoint")["parameters"]

    def _step(self, which: Checkpoint, items: tuple[str, ...]) -> int | None:
        """Step of the newest or best checkpoint that has these items."""
        folder = Path(self._orbax.directory)
        found = [one for one in self._orbax.checkpoints if _holds(folder / str(one.step), items)]
        if which == "best":
            found = sorted((one for one in found if one.metrics), key=lambda one: -_validation(one.metrics))
        return found[-1].step if found else None

    def _load(self, step: int | None, wanted: dict[str, Any], kind: str) -> dict[str, Any]:
        if step is None:
            raise UserError(f"{self._orbax.directory} holds no {kind}; train first")
        try:
            return self._orbax.load_checkpointables(step, wanted)
        except (ValueError, KeyError, FileNotFoundError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"{self._orbax.directory}/{step} does not fit this configuration: {reason}") from error

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn what the file system refuses into one line; other errors are bugs."""
        try:
            yield
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            if isinstance(error, ValueError) and "os_error_code" not in reason:  # TensorStore's name for it
                raise
            last = self.latest
            left = "no checkpoint is complete yet" if last is None else f"step {last} is safe"
            raise UserError(
                f"cannot save into {self._orbax.directory} ({reason}); {left}; mend it and the same command resumes"
            ) from error


def _holds(checkpoint: Path, items: tuple[str, ...]) -> bool:
    return all((checkpoint / item / "_METADATA").is_file() for item in items)


def _set_aside(folder: Path) -> None:
    """Rename folders that are named like a checkpoint and are not whole: Orbax would save no smaller step.

    A local save never leaves such a folder; a copy that was cut short does, and a file system that renames bit by bit.
    """
    for path in folder.glob("[0-9]*"):
        if path.name.isdigit() and not _holds(path, ITEMS):
            aside = path.with_name(f"{path.name}.incomplete")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)


def _validation(metrics: Any) -> float:
    return metrics["validation"]
