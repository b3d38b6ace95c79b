"""Ctrl-C and SIGTERM as a request to save and stop, which all processes of a job follow at the same step."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType

import jax
from jax.experimental import multihost_utils


class Interrupts:
    """While entered, the first SIGINT or SIGTERM only makes `stop` true; a second one acts as usual.

    With several processes JAX itself catches SIGTERM, on any of them, and lets them agree on a step.
    """

    def __init__(self) -> None:
        self._requested = False
        self._together = jax.process_count() > 1
        self._old: dict[int, object] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT,) if self._together else (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def stop(self, step: int) -> bool:
        """Return True if the run is to save and stop after this step; call after every step, on every process."""
        return multihost_utils.reached_preemption_sync_point(step) if self._together else self._requested

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._requested = True
        self._restore()
        if self._together:
            os.kill(os.getpid(), signal.SIGTERM)

    def _restore(self) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._old = {}
