"""SIGKILL at random moments of a run, saves included; each resumed run must end bit for bit like an uninterrupted one.

Not part of the suite, which has one kill (tests/train/test_loop.py); run it by name, with as many kills as wanted:

    KILLS=20 python -m pytest tests/stress/kills.py -s

Runs are forked from one process that has imported everything, and share compiled programs, so each takes seconds.
"""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxguard.config import Config, TrainConfig, to_dict
from jaxguard.train.checkpoint import Checkpoints
from jaxguard.train.setup import load_model, prepare
from jaxguard.train.state import TrainState

KILLS = int(os.environ.get("KILLS", "20"))
FORKS = """
import json, os, sys
from jaxguard.cli.main import main
from jaxguard.train import loop
print("ready", flush=True)
for line in sys.stdin:
    config, log = json.loads(line)
    child = os.fork()
    if child == 0:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(file, stream)
        os._exit(main(["train", config]))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Forks:
    """Starts runs, one at a time, without importing anything again."""

    def __init__(self, folder: Path):
        cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", FORKS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | cache | {"PYTHONUNBUFFERED": "1"},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._write, self._said = self._process.stdin, self._process.stdout
        assert self._read() == "ready"

    def start(self, config: Config) -> int:
        """The process id of a run of this configuration."""
        config.out.mkdir(exist_ok=True)
        path = config.out / "run.py"
        path.write_text(
            "import json\nfrom jaxguard.config import from_dict\n"
            f"config = from_dict(json.loads({json.dumps(to_dict(config))!r}))\n"
        )
        self._write.write(json.dumps([str(path), str(config.out / "log")]) + "\n")
        self._write.flush()
        return int(self._read())

    def end(self) -> int:
        """Wait for it; its exit code, or minus the signal that ended it."""
        return int(self._read())

    def close(self) -> None:
        self._write.close()
        self._said.close()
        self._process.wait()

    def _read(self) -> str:
        line = self._said.readline().strip()
        assert line, f"the process that forks ended with {self._process.wait()}"
        return line


def checkpoints(config: Config) -> tuple[list[int], bool]:
    """Complete steps, and whether a save is under way."""
    names = [path.name for path in (config.run_dir / "checkpoints").glob("*")]
    return sorted(int(name) for name in names if name.isdigit()), any("tmp" in name for name in names)


def alive(process: int) -> bool:
    """Also a process that has ended is there until it is waited for; it then shows no command line."""
    try:
        return bool(Path(f"/proc/{process}/cmdline").read_bytes())
    except OSError:
        return False


def wait_for_steps(process: int, config: Config, count: int) -> None:
    path = config.run_dir / "metrics.jsonl"
    while alive(process) and not (path.exists() and path.read_text().count("\n") >= count):
        time.sleep(0.002)


def wait_for_save(process: int, config: Config, after: int) -> None:
    """Until one is under way with at least so many steps done."""
    wait_for_steps(process, config, after)
    while alive(process) and not checkpoints(config)[1]:
        time.sleep(0.0005)


def ending(config: Config, abstract: TrainState) -> tuple[object, object, list]:
    """Final state, data position and losses."""
    with Checkpoints(config.run_dir) as found:
        state, position = found.restore(abstract)
    records = [json.loads(line) for line in (config.run_dir / "metrics.jsonl").read_text().splitlines()]
    return jax.tree.map(np.asarray, state), position, [(record["step"], record["loss"]) for record in records]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kills")


def test_killed_runs_end_like_one_that_was_left_alone(small_config: Config, folder: Path) -> None:
    train = TrainConfig(steps=40, batch_size=8, warmup=2, log_every=1, save_every=2)
    config = dataclasses.replace(small_config, train=train, out=folder / "reference")
    forks, rng = Forks(folder), random.Random(time.time_ns())
    forks.start(config)
    assert forks.end() == 0
    abstract = prepare(load_model(config.model, config.mesh, config.seed), config.model.trainable, config.train)[
        0
    ].abstract
    state, position, losses = ending(config, abstract)
    assert len(losses) == 40

    killed = inside = 0
    while killed < KILLS:
        trial = dataclasses.replace(config, out=folder / f"{killed}")
        process = forks.start(trial)
        step = rng.randrange(1, 38)
        if killed % 2:
            wait_for_save(process, trial, step)
            time.sleep(rng.random() * 0.03)
        else:
            wait_for_steps(process, trial, step)
            time.sleep(rng.random() * 0.05)
        os.kill(process, signal.SIGKILL)
        if forks.end() != -signal.SIGKILL:  # it had ended
            continue
        steps, saving = checkpoints(trial)
        done = (trial.run_dir / "metrics.jsonl").read_text().count("\n")
        forks.start(trial)
        assert forks.end() == 0, (trial.out / "log").read_text()
        its_state, its_position, its_losses = ending(trial, abstract)
        jax.tree.map(np.testing.assert_array_equal, its_state, state)
        assert (its_position, its_losses) == (position, losses)
        killed, inside = killed + 1, inside + saving
        print(
            f"kill {killed:2}: at step {done:2}, {'inside a save' if saving else 'between saves':13}, "
            f"went on from {steps[-1] if steps else 0:2}, ended bit for bit the same",
            flush=True,
        )
    forks.close()
    print(f"{killed} kills, {inside} of them inside a save")
    assert inside
