"""Checkpoints: which are kept, which is selected, restoring on another mesh, and a full disk."""

import dataclasses
import errno
import resource
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from orbax.checkpoint import v1 as ocp

from jaxguard.config import MeshConfig, TrainConfig
from jaxguard.errors import UserError
from jaxguard.train.checkpoint import Checkpoints
from jaxguard.train.sharding import make_mesh
from jaxguard.train.state import TrainState, initial_state

OPTIMIZER = optax.adam(1e-3)


def state_of(step: int, mesh: MeshConfig | None = None) -> TrainState:
    """Parameters that hold the step; on a mesh, split over all of it."""
    values = {"layer.kernel": jnp.arange(64, dtype=jnp.float32).reshape(8, 8) + step}
    if mesh:
        everywhere = NamedSharding(make_mesh(mesh), PartitionSpec(("data", "fsdp"), "tensor"))
        values = jax.device_put(values, everywhere)
    return dataclasses.replace(initial_state(values, OPTIMIZER), step=jnp.int32(step))


def shapes(state: TrainState) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)


def save(run: Path, steps: dict[int, float | None], train: TrainConfig) -> None:
    """A checkpoint for each step, with its validation loss."""
    with Checkpoints(run, train) as checkpoints:
        for step, loss in steps.items():
            checkpoints.save(step, state_of(step), {"next_index": step}, loss)


def kept(run: Path) -> list[int]:
    return sorted(int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdigit())


def kernel(values: dict) -> float:
    return float(values["layer.kernel"][0, 0])


def test_the_newest_and_the_best_stay_and_either_can_be_read(tmp_path: Path) -> None:
    train = TrainConfig(keep=2, keep_best=1, validation=8)
    save(tmp_path, {1: 3.0, 2: 1.0, 3: 2.0, 4: 5.0, 5: 4.0}, train)
    assert kept(tmp_path) == [2, 4, 5]
    abstract = shapes(state_of(0))
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest == 5
        assert kernel(checkpoints.parameters(abstract.parameters, "newest")) == 5
        assert kernel(checkpoints.parameters(abstract.parameters, "best")) == 2
    save(tmp_path, {6: 0.5}, train)
    assert kept(tmp_path) == [5, 6]


def test_without_a_validation_loss_there_is_no_best(tmp_path: Path) -> None:
    save(tmp_path, {1: None, 2: None, 3: None}, TrainConfig(keep=2))
    assert kept(tmp_path) == [2, 3]
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match=r"no checkpoint with a validation loss"):
        checkpoints.parameters(shapes(state_of(0)).parameters, "best")


@pytest.mark.parametrize("mesh", [MeshConfig(data=2, fsdp=2, tensor=2), MeshConfig(data=1, fsdp=1, tensor=8)])
def test_another_mesh_restores_the_same(tmp_path: Path, mesh: MeshConfig) -> None:
    with Checkpoints(tmp_path, TrainConfig()) as checkpoints:
        checkpoints.save(3, state_of(3, MeshConfig(data=8)), {"next_index": 3})
    wanted = state_of(0, mesh)
    with Checkpoints(tmp_path) as checkpoints:
        state, position = checkpoints.restore(shapes(wanted))
    assert position == {"next_index": 3}
    assert state.step == 3
    assert state.parameters["layer.kernel"].sharding == wanted.parameters["layer.kernel"].sharding
    jax.tree.map(np.testing.assert_array_equal, state, state_of(3))


def test_what_is_half_there_is_never_chosen_and_does_not_stop_later_saves(tmp_path: Path) -> None:
    """A save that was killed, a copy that was cut short, and an empty folder."""
    save(tmp_path, {4: None, 5: None}, TrainConfig())
    folder = tmp_path / "checkpoints"
    shutil.copytree(folder / "5", folder / "6.orbax-checkpoint-tmp")
    shutil.copytree(folder / "5", folder / "7")
    (folder / "7" / "optimizer" / "_METADATA").unlink()
    (folder / "8").mkdir()
    abstract = shapes(state_of(0))
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest == 5
    with Checkpoints(tmp_path, TrainConfig(keep=4)) as checkpoints:
        assert checkpoints.latest == 5
        state, _ = checkpoints.restore(abstract)
        assert kernel(state.parameters) == 5
        for step in (6, 7, 8):
            checkpoints.save(step, state_of(step), {"next_index": step})
    assert kept(tmp_path) == [5, 6, 7, 8]
    assert {"7.incomplete", "8.incomplete"} == {path.name for path in folder.iterdir() if not path.name.isdigit()}
    with Checkpoints(tmp_path) as checkpoints:
        assert kernel(checkpoints.restore(abstract)[0].parameters) == 8


def test_parameters_need_nothing_else_of_a_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, {1: None}, TrainConfig())
    for item in ("optimizer", "data"):
        shutil.rmtree(tmp_path / "checkpoints" / "1" / item)
    abstract = shapes(state_of(0))
    with Checkpoints(tmp_path) as checkpoints:
        assert kernel(checkpoints.parameters(abstract.parameters, "newest")) == 1
        with pytest.raises(UserError, match="holds no complete checkpoint; train first"):
            checkpoints.restore(abstract)


def test_another_model_is_one_line(tmp_path: Path) -> None:
    save(tmp_path, {1: None}, TrainConfig())
    other = {"other.kernel": jax.ShapeDtypeStruct((8, 8), jnp.float32)}
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match=r"1 does not fit this configuration: "):
        checkpoints.parameters(other, "newest")


def test_saves_are_due_by_steps_and_by_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("jaxguard.train.checkpoint.time.monotonic", lambda: now)
    with Checkpoints(tmp_path, TrainConfig(save_every=10, save_minutes=2)) as checkpoints:
        assert [step for step in range(1, 31) if checkpoints.due(step, synchronised=True)] == [10, 20, 30]
        now = 121.0
        assert checkpoints.due(31, synchronised=True)
        assert not checkpoints.due(31, synchronised=False)
        checkpoints.save(31, state_of(31), {"next_index": 31})
        assert not checkpoints.due(32, synchronised=True)
    with Checkpoints(tmp_path, TrainConfig(save_every=10)) as checkpoints:
        now = 1e9
        assert not checkpoints.due(31, synchronised=True)


def one_line(caught: pytest.ExceptionInfo[UserError], reason: str) -> bool:
    """What a user is told when a save fails after step 1."""
    text, ending = str(caught.value), "; step 1 is safe; mend it and the same command resumes"
    return reason in text and text.endswith(ending) and "\n" not in text


def test_a_full_disk_is_one_line_and_the_last_checkpoint_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, {1: None}, TrainConfig())

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "checkpoints/2")

    monkeypatch.setattr(ocp.training.Checkpointer, "save_checkpointables_async", full)
    with Checkpoints(tmp_path, TrainConfig()) as checkpoints, pytest.raises(UserError) as caught:
        checkpoints.save(2, state_of(2), {"next_index": 2})
    assert one_line(caught, "No space left on device")
    assert kept(tmp_path) == [1]


def test_a_write_that_fails_in_the_background_is_told_at_the_next_call(tmp_path: Path) -> None:
    """A limit on the size of files lets the save start, and stops it while it writes the arrays."""
    save(tmp_path, {1: None}, TrainConfig())
    noise = {"layer.kernel": jax.random.normal(jax.random.key(0), (256, 256))}  # 256 KiB that cannot be compressed
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    checkpoints = Checkpoints(tmp_path, TrainConfig())
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, hard))
        checkpoints.save(2, initial_state(noise, OPTIMIZER), {"next_index": 2})
        with pytest.raises(UserError) as caught:
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert one_line(caught, "File too large")
    assert kept(tmp_path) == [1]
    with checkpoints:
        checkpoints.save(3, state_of(3), {"next_index": 3})
    assert kept(tmp_path) == [1, 3]


def test_a_bug_in_saving_keeps_its_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(ocp.training.Checkpointer, "save_checkpointables_async", broken)
    with Checkpoints(tmp_path, TrainConfig()) as checkpoints, pytest.raises(ValueError, match="a bug"):
        checkpoints.save(1, state_of(1), {"next_index": 1})
