"""Checkpoints of a run: train state and data position together, saved in the background, never half-visible."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

from orbax.checkpoint import v1 as ocp

from jaxguard.errors import UserError
from jaxguard.train.state import TrainState

FOLDER = "checkpoints"


class Checkpoints:
    """The checkpoints of one run folder. Use as a context manager: leaving it waits for saves under way."""

    def __init__(self, run: Path, *, keep: int | None = None):
        """`keep` newest checkpoints stay; None only reads, and leaves a save that another process has under way."""
        self._orbax = ocp.training.Checkpointer(
            (run / FOLDER).resolve(),
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=keep is not None,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._orbax.close()

    @property
    def latest(self) -> int | None:
        """The newest complete step."""
        return None if self._orbax.latest is None else self._orbax.latest.step

    def save(self, step: int, state: TrainState, position: dict[str, Any]) -> None:
        """Start saving; returns once the arrays are copied off the devices. A failure surfaces at the next call."""
        self._orbax.save_checkpointables_async(step, {"state": state, "data": position})

    def wait(self) -> None:
        """Until every save is on disk."""
        self._orbax.wait()

    def restore(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest state, placed as `abstract` says (any mesh), and the data position.

        Raises:
            UserError: there is none, or it holds other arrays than `abstract`.
        """
        step = self.latest
        if step is None:
            raise UserError(f"{self._orbax.directory} holds no complete checkpoint; train first")
        try:
            loaded = self._orbax.load_checkpointables(step, {"state": abstract, "data": None})
        except (ValueError, KeyError, FileNotFoundError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"{self._orbax.directory}/{step} does not fit this configuration: {reason}") from error
        return loaded["state"], loaded["data"]
