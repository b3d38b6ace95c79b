"""Tasks in several processes: each runs once, workers stay within their share, deaths and interrupts are survived."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from jaxguard.errors import Preempted, UserError
from jaxguard.experiments.workers import VISIBLE, run_tasks, shares

CORES = len(os.sched_getaffinity(0))


def describe(number: int) -> tuple[int, tuple[int, ...]]:
    return number, tuple(sorted(os.sched_getaffinity(0)))


def die(number: int) -> int:
    if number == 1:
        os._exit(1)
    return number


def last(folder: Path, number: int) -> int:
    """Until terminated, then take leave as a run does that saves."""
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    (folder / f"began-{number}").touch()
    asked.wait(60)
    (folder / f"saved-{number}").touch()
    raise Preempted("saved")


def test_every_task_is_done_once_within_its_share() -> None:
    results = dict(run_tasks(describe, [(number,) for number in range(5)], 2))
    assert [results[number][0] for number in range(5)] == list(range(5))
    places = {results[number][1] for number in range(5)}
    assert places <= {share.cores for share in shares(2)}
    assert all(len(cores) <= (CORES + 1) // 2 for cores in places)


def test_a_dying_worker_takes_only_its_task_along() -> None:
    assert dict(run_tasks(die, [(number,) for number in range(4)], 2)) == {0: 0, 1: None, 2: 2, 3: 3}


def test_tasks_that_no_worker_is_left_for_are_not_forgotten() -> None:
    results = dict(run_tasks(die, [(1,), (1,), (0,)], 2))
    assert results == {0: None, 1: None, 2: None}


def test_an_interrupt_lets_every_worker_save(tmp_path: Path) -> None:
    def interrupt() -> None:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("began-*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=interrupt).start()
    with pytest.raises(Preempted):
        list(run_tasks(last, [(tmp_path, number) for number in range(4)], 2))
    assert sorted(path.name for path in tmp_path.glob("saved-*")) == ["saved-0", "saved-1"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_gpus_are_shared_out_and_too_many_jobs_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "4,5,6,7")
    assert [share.gpus for share in shares(2)] == ["4,6", "5,7"]
    monkeypatch.setenv(VISIBLE, "4")
    with pytest.raises(UserError, match=rf"--jobs is 2: there are only 1 GPUs in {VISIBLE}"):
        shares(2)
    with pytest.raises(UserError, match=f"--jobs is {CORES + 1}: there are only {CORES} cores"):
        shares(CORES + 1)
