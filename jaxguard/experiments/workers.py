"""Processes that share out this machine's cores and visible GPUs, and work off a list of tasks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from jaxguard.errors import Preempted, UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"
POLL = 0.5
"""Seconds after which an interrupt is noticed at the latest."""


@dataclass(frozen=True)
class Share:
    """What one worker may use: cores by number and, where GPUs are named, some of them."""

    cores: tuple[int, ...]
    gpus: str | None


def shares(jobs: int) -> list[Share]:
    """Even shares of the cores this process may run on and of the GPUs that CUDA_VISIBLE_DEVICES names.

    Raises:
        UserError: there are fewer cores or GPUs than jobs.
    """
    cores, named = sorted(os.sched_getaffinity(0)), os.environ.get(VISIBLE)
    gpus = named.split(",") if named else []
    for kind, found in (("cores", cores), (f"GPUs in {VISIBLE}", gpus)):
        if (found or kind == "cores") and len(found) < jobs:
            raise UserError(f"--jobs is {jobs}: there are only {len(found)} {kind}")
    return [Share(tuple(cores[place::jobs]), ",".join(gpus[place::jobs]) if gpus else named) for place in range(jobs)]


def run_tasks(call: Callable[..., Any], tasks: Sequence[tuple], jobs: int) -> Iterator[tuple[int, Any]]:
    """`call(*task)` for every task in `jobs` processes; yields (number of the task, result) as they end.

    A worker that dies takes its task along, whose result is None; the others go on. `call` must not raise but for
    `Preempted`, once this process is interrupted.

    Raises:
        Preempted: interrupted; every worker was asked to save and has ended.
    """
    context, waiting = multiprocessing.get_context("spawn"), list(enumerate(tasks))[::-1]
    workers: dict[Connection, BaseProcess] = {}
    busy: dict[Connection, int] = {}
    for share in shares(jobs)[: len(tasks)]:
        ours, theirs = context.Pipe()
        workers[ours] = context.Process(target=_work, args=(share, call, theirs))
        workers[ours].start()
        theirs.close()
    interrupted = threading.Event()
    old = {number: signal.signal(number, lambda *_: interrupted.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for connection in workers:
            with suppress(OSError):  # it died before its first task, which another takes
                _hand_over(connection, waiting, busy)
        while busy and not interrupted.is_set():
            ready = wait(list(busy), POLL)
            for connection in [each for each in busy if each in ready]:
                number, result = busy.pop(connection), None
                with suppress(EOFError, OSError):  # it died, with its task or behind it
                    result = connection.recv()
                    _hand_over(connection, waiting, busy)
                yield number, result
        if interrupted.is_set():
            raise Preempted("interrupted; the same command goes on")
        yield from ((number, None) for number, _ in waiting)  # no worker is left for them
    finally:
        for connection, process in workers.items():
            connection.close()
            if connection in busy:
                process.terminate()
        for process in workers.values():
            process.join()
        for number, handler in old.items():
            signal.signal(number, handler)


def _hand_over(connection: Connection, waiting: list[tuple[int, tuple]], busy: dict[Connection, int]) -> None:
    if waiting:
        number, task = waiting[-1]
        connection.send(task)
        busy[connection] = number
        waiting.pop()


def _work(share: Share, call: Callable[..., Any], connection: Connection) -> None:
    """A worker's life: apart from the terminal's Ctrl-C, which its parent passes on, and not longer than its parent."""
    os.setsid()
    threading.Thread(target=_follow_parent, daemon=True).start()
    os.sched_setaffinity(0, share.cores)
    if share.gpus is not None:
        os.environ[VISIBLE] = share.gpus
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            connection.send(call(*task))
        except Preempted:
            return


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
