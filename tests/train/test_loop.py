"""Whole runs: their files, learning, stopping and bit-exact resume."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from jaxguard.config import to_dict
from jaxguard.errors import UserError
from jaxguard.train.checkpoint import Checkpoints
from jaxguard.train.loop import check_run, train
from jaxguard.train.setup import load_model, prepare


def final_state(config):
    setup, _ = prepare(load_model(config.model, config.mesh, config.seed), config.model.trainable, config.train)
    with Checkpoints(config.run_dir) as checkpoints:
        state, position = checkpoints.restore(setup.abstract)
    return jax.tree.map(np.asarray, state), position


def losses(config):
    records = [json.loads(line) for line in (config.run_dir / "metrics.jsonl").read_text().splitlines()]
    return [(record["step"], record["loss"]) for record in records]


def assert_same(config, other):
    (state, position), (other_state, other_position) = final_state(config), final_state(other)
    jax.tree.map(np.testing.assert_array_equal, state, other_state)
    assert position == other_position
    assert losses(config) == losses(other)


def elsewhere(config, name):
    return dataclasses.replace(config, out=config.out.parent / name)


def start(config, *flags):
    """The same run through the command line, in a process of its own."""
    path = config.out.parent / f"{config.out.name}.py"
    path.write_text(
        "import json\nfrom jaxguard.config import from_dict\n"
        f"config = from_dict(json.loads({json.dumps(json.dumps(to_dict(config)))!s}))\n"
    )
    return subprocess.Popen(
        [sys.executable, "-m", "jaxguard", "train", str(path), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )


def wait_for_step(process, step):
    """Lines up to the one that reports the step."""
    for line in process.stdout:
        if line.startswith(f"step {step}/"):
            return
    pytest.fail(f"the run ended before step {step}")


def finish(process):
    """(exit code, the rest of the output)."""
    with process:
        output = process.stdout.read()
    return process.returncode, output


def test_a_run_writes_its_config_manifest_metrics_and_checkpoints(small_config):
    run = train(small_config)
    assert json.loads((run / "config.json").read_text()) == to_dict(small_config)
    assert len(json.loads((run / "manifest.json").read_text())["poisoned"]) == 12
    assert [step for step, _ in losses(small_config)] == list(range(1, 9))
    state, position = final_state(small_config)
    assert state.step == 8
    assert position == {"next_index": 8}


def test_loss_falls_and_only_trainable_parameters_move(small_config):
    config = dataclasses.replace(
        small_config,
        train=dataclasses.replace(small_config.train, steps=60, learning_rate=3e-3, log_every=10, save_every=60),
        attack=dataclasses.replace(small_config.attack, name="none"),
    )
    train(config)
    curve = [loss for _, loss in losses(config)]
    assert curve[-1] < 0.7 * curve[0]
    model = load_model(config.model, config.mesh, config.seed)
    setup, before = prepare(model, config.model.trainable, config.train)
    state, _ = final_state(config)
    assert set(state.parameters) == set(before)
    assert not set(before) & set(setup.frozen)
    assert all(path.startswith(("language.", "projector.")) for path in state.parameters)
    assert all(path.startswith("vision.") for path in setup.frozen)
    for path, value in state.parameters.items():
        assert not np.array_equal(value, before[path]), path
    moments = {key for key, _ in jax.tree_util.tree_flatten_with_path(state.optimizer)[0]}
    assert not any("vision" in jax.tree_util.keystr(key) for key in moments)


def test_same_seed_same_run_and_other_seed_another(small_config):
    again, other = elsewhere(small_config, "again"), dataclasses.replace(elsewhere(small_config, "other"), seed=1)
    for config in (small_config, again, other):
        train(config)
    assert_same(small_config, again)
    assert losses(other) != losses(small_config)


def wait_for_checkpoint(process, config):
    """Until the first complete checkpoint of a running process shows."""
    while process.poll() is None:
        if any(path.name.isdigit() for path in (config.run_dir / "checkpoints").glob("*")):
            return
        time.sleep(0.01)
    pytest.fail("the run ended before its first checkpoint")


def test_killed_run_resumes_bit_for_bit(finished_config, tmp_path, capsys):
    """SIGKILL as soon as the second save shows; tests/stress/kills.py does it at many random moments."""
    killed = dataclasses.replace(finished_config, out=tmp_path / "killed")
    process = start(killed)
    wait_for_checkpoint(process, killed)
    while process.poll() is None and not list((killed.run_dir / "checkpoints").glob("*tmp*")):
        time.sleep(0.001)
    process.kill()
    assert finish(process)[0] == -signal.SIGKILL
    train(killed)
    assert "resuming" in capsys.readouterr().err
    assert_same(finished_config, killed)


def test_interrupted_run_saves_exits_75_and_resumes(finished_config, tmp_path):
    """By both signals, one after the other: bit for bit on the same mesh, and on another mesh the same curve."""
    stopped = dataclasses.replace(finished_config, out=tmp_path / "stopped")
    for number, step in (signal.SIGINT, 2), (signal.SIGTERM, 12):
        process = start(stopped)
        wait_for_step(process, step)
        process.send_signal(number)
        code, output = finish(process)
        assert code == 75, output
        assert "the same command resumes" in output
        assert "Traceback" not in output
    shutil.copytree(stopped.out, tmp_path / "moved")
    train(stopped)
    assert_same(finished_config, stopped)

    mesh = dataclasses.replace(stopped.mesh, data=2, fsdp=2, tensor=2)
    moved = dataclasses.replace(stopped, out=tmp_path / "moved", mesh=mesh)
    train(moved)
    one, other = (np.array([loss for _, loss in losses(config)]) for config in (finished_config, moved))
    assert len(other) == 40
    np.testing.assert_allclose(one, other, rtol=1e-4)  # sums run in another order: what 40 steps make of rounding


def test_finished_run_is_left_alone(small_config, capsys):
    train(small_config)
    before = (small_config.run_dir / "metrics.jsonl").read_text()
    train(small_config)
    assert "already trained" in capsys.readouterr().err
    assert (small_config.run_dir / "metrics.jsonl").read_text() == before


def test_run_folder_of_another_run_is_refused(small_config):
    train(small_config)
    other = dataclasses.replace(small_config, train=dataclasses.replace(small_config.train, learning_rate=0.5))
    with pytest.raises(UserError, match=r"other values of train.learning_rate; choose another --name"):
        train(other)


def test_a_run_folder_from_before_an_option_existed_is_the_same_run(small_config):
    train(small_config)
    path = small_config.run_dir / "config.json"
    stored = json.loads(path.read_text())
    del stored["view"]["jitter"]
    path.write_text(json.dumps(stored))
    check_run(small_config.run_dir, small_config)
    path.write_text("{")
    with pytest.raises(UserError, match=r"config.json is no configuration .*; remove .* or choose another --name"):
        check_run(small_config.run_dir, small_config)


def test_a_run_that_cannot_start_leaves_nothing_behind(small_config):
    with pytest.raises(UserError, match="does not fit 8 device"):
        train(dataclasses.replace(small_config, mesh=dataclasses.replace(small_config.mesh, data=3)))
    assert not small_config.run_dir.exists()


def test_a_loss_that_explodes_ends_in_one_line(small_config):
    wild = dataclasses.replace(small_config.train, learning_rate=1e30, steps=20)
    with pytest.raises(UserError, match=r"the loss of step \d+ is (nan|inf); lower train.learning_rate"):
        train(dataclasses.replace(small_config, train=wild))
