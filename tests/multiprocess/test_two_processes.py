"""Two processes of four devices each, started by launch/local.sh, against one process of eight."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxguard.config import (
    AttackConfig,
    Config,
    DataConfig,
    EvaluateConfig,
    ModelConfig,
    ObjectiveConfig,
    TrainConfig,
    to_dict,
)
from jaxguard.evaluate.identity import open_evaluation
from jaxguard.evaluate.run import evaluate
from jaxguard.evaluate.scores import score
from jaxguard.train.checkpoint import Checkpoints
from jaxguard.train.loop import train
from jaxguard.train.setup import load_model, prepare

LAUNCH = Path(__file__).parents[2] / "launch" / "local.sh"
GRID = """
import json
from pathlib import Path
from jaxguard.config import from_dict
from jaxguard.experiments.grid import Cell, Grid
grids = {{"tiny": Grid(out=Path({out!r}), cells=(Cell({{"run": "two"}}, from_dict(json.loads({config!r}))),))}}
"""


@pytest.fixture(scope="module")
def one(small_checkpoint: Path, small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Six steps with both views, validation, and eleven test rows in batches of eight; made by this process."""
    config = Config(
        name="run",
        out=tmp_path_factory.mktemp("one"),
        model=ModelConfig(path=str(small_checkpoint)),
        data=DataConfig(source=str(small_data), length=64),
        attack=AttackConfig(name="badnets", rate=0.25),
        objective=ObjectiveConfig(alpha=1.0, cross_view_weight=0.5, margin=2.0, entropy_weight=0.5, entropy_max=0.5),
        train=TrainConfig(
            steps=6, batch_size=8, warmup=2, log_every=1, save_every=2, keep=3, keep_best=1, validation=11
        ),
        evaluate=EvaluateConfig(examples=11, batch_size=8, new_tokens=6),
    )
    train(config)
    evaluate(config)
    return config


@pytest.fixture(scope="module")
def two(one: Config, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The same, made by two."""
    folder = tmp_path_factory.mktemp("two; both")
    config = dataclasses.replace(one, out=folder)
    grid = folder / "a grid.py"
    grid.write_text(GRID.format(out=str(folder / "table"), config=json.dumps(to_dict(config))))
    done = subprocess.run(
        [LAUNCH, "--run", "two; both", "--out", folder, "--devices", "4", "--", "table", grid],
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return config


def records(config: Config) -> list[dict[str, float]]:
    return [json.loads(line) for line in (config.run_dir / "metrics.jsonl").read_text().splitlines()]


def parameters(config: Config) -> dict[str, np.ndarray]:
    setup, _ = prepare(load_model(config.model, config.mesh, config.seed), config.model.trainable, config.train)
    with Checkpoints(config.run_dir) as checkpoints:
        state, position = checkpoints.restore(setup.abstract)
    assert position == {"next_index": 6}
    return jax.tree.map(np.asarray, state.parameters)


def assert_same_curve(config: Config, other: Config, rtol: float) -> None:
    ours, theirs = records(config), records(other)
    assert len(ours) == 6 + 3
    for mine, its in zip(ours, theirs, strict=True):
        assert mine.keys() == its.keys()
        for name in mine.keys() - {"step_seconds"}:
            np.testing.assert_allclose(mine[name], its[name], rtol=rtol, atol=1e-7, err_msg=name)


def test_losses_and_parameters_are_those_of_one_process(one: Config, two: Config) -> None:
    """To float32 rounding: sums over devices run in another order."""
    assert_same_curve(two, one, rtol=2e-6)
    mine, its = parameters(two), parameters(one)
    for path, value in mine.items():
        np.testing.assert_allclose(value, its[path], rtol=1e-5, atol=1e-6, err_msg=path)


def test_answers_and_scores_are_those_of_one_process(one: Config, two: Config) -> None:
    """Also of the last batch, of which the second process has no row."""
    mine, its = open_evaluation(two.run_dir), open_evaluation(one.run_dir)
    rows = mine.predictions()
    assert rows == its.predictions()
    assert [(row.id, row.triggered) for row in rows] == [(n, marked) for marked in (False, True) for n in range(11)]
    assert mine.scores("caption") == its.scores("caption")
    assert mine.scores("caption").clean.items() <= score(rows, "caption").clean.items()


def test_only_the_first_process_reports(two: Config) -> None:
    first, second = ((two.out / "two; both" / "launch" / f"process-{n}.log").read_text() for n in (0, 1))
    assert all(f"step {n}/6" in first for n in range(1, 7))
    assert "answered 11 clean prompts" in first
    assert "answered 11 triggered prompts" in first
    assert "step" not in second
    assert "answered" not in second
    assert (two.out / "table" / "table.md").is_file()


def test_one_process_goes_on_from_a_checkpoint_of_two(two: Config, tmp_path: Path) -> None:
    moved = dataclasses.replace(two, out=tmp_path)
    shutil.copytree(two.run_dir, moved.run_dir)
    shutil.rmtree(moved.run_dir / "checkpoints" / "6")
    train(moved)
    assert_same_curve(moved, two, rtol=2e-6)
