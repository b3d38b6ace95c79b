"""Worker processes that share the machine's cores and visible GPUs and run a list of tasks."""

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
"""Seconds between checks for an interrupt."""


@dataclass(frozen=True)
class Share:
    """Resources of one worker: core numbers and, if CUDA_VISIBLE_DEVICES is set, its GPUs."""

    cores: tuple[int, ...]
    gpus: str | None


def shares(jobs: int) -> list[Share]:
    """Divide the available cores and the GPUs in CUDA_VISIBLE_DEVICES evenly.

    Raises:
        UserError: There are fewer cores or GPUs than jobs.
    """
    cores, named = sorted(os.sched_getaffinity(0)), os.environ.get(VISIBLE)
    gpus = named.split(",") if named else []
    for kind, found in (("cores", cores), (f"GPUs in {VISIBLE}", gpus)):
        if (found or kind == "cores") and len(found) < jobs:
            raise UserError(f"--jobs is {jobs}: there are only {len(found)} {kind}")
    return [Share(tuple(cores[place::jobs]), ",".join(gpus[place::jobs]) if gpus else named) for place in range(jobs)]


def run_tasks(call: Callable[..., Any], tasks: Sequence[tuple], jobs: int) -> Iterator[tuple[int, Any]]:
    """Run `call(*task)` for every task in `jobs` processes; yields (index of the task, result) as tasks end.

    If a worker dies, the result of its task is None and the other workers continue. `call` may raise nothing but
    `Preempted`, and only after this process was interrupted.

    Raises:
        Preempted: Interrupted; every worker was asked to save and has ended.
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
            with suppress(OSError):  # the worker died before its first task; another one takes the task
                _hand_over(connection, waiting, busy)
        while busy and not interrupted.is_set():
            ready = wait(list(busy), POLL)
            for connection in [each for each in busy if each in ready]:
                number, result = busy.pop(connection), None
                with suppress(EOFError, OSError):  # the worker died, during its task or after it
                    result = connection.recv()
                    _hand_over(connection, waiting, busy)
                yield number, result
        if interrupted.is_set():
            raise Preempted("interrupted; the same command resumes")
        yield from ((number, None) for number, _ in waiting)  # no worker is left for these tasks
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
    """Main loop of a worker. Ctrl-C reaches the parent only, which forwards it; the worker ends with its parent."""
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
