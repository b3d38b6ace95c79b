"""The table of sharding rules, and that a mesh changes the placement of arrays and nothing else."""

import dataclasses
import json
import logging
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxguard.batch import Batch
from jaxguard.config import LoraConfig, MeshConfig, ModelConfig
from jaxguard.errors import UserError
from jaxguard.models import folders
from jaxguard.models.architecture import architecture
from jaxguard.train.loop import train
from jaxguard.train.setup import load_model, prepare
from jaxguard.train.sharding import (
    batch_sharding,
    local_places,
    local_rows,
    make_mesh,
    parameter_shardings,
    place_batch,
)

MESHES = {
    "8 data": MeshConfig(data=8),
    "8 fsdp": MeshConfig(data=1, fsdp=8),
    "2x2x2": MeshConfig(data=2, fsdp=2, tensor=2),
}
ONE_DEVICE = """
import json, sys
from jaxguard.config import from_dict
from jaxguard.train.loop import train
train(from_dict(json.loads(sys.argv[1])))
"""


def losses(config):
    return [json.loads(line)["loss"] for line in (config.run_dir / "metrics.jsonl").read_text().splitlines()]


def test_loss_curve_is_the_same_on_one_device_and_every_mesh(small_config):
    """To 2e-5 relative: sums over devices run in another order, and eight steps let float32 rounding (6e-8) grow."""
    from jaxguard.config import to_dict

    single = dataclasses.replace(small_config, name="one")
    subprocess.run(
        [sys.executable, "-c", ONE_DEVICE, json.dumps(to_dict(single))],
        env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"},
        check=True,
        capture_output=True,
    )
    expected = losses(single)
    assert len(expected) == 8
    assert expected[-1] != expected[0]
    for name, mesh in MESHES.items():
        config = dataclasses.replace(small_config, name=name, mesh=mesh)
        train(config)
        np.testing.assert_allclose(losses(config), expected, rtol=2e-5, err_msg=name)


def test_every_parameter_follows_its_rule():
    arch = architecture(folders.resolve("tiny-llava"), dtype="float32", remat="none")
    shardings = parameter_shardings(arch.shapes, make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)), arch.family.axes)
    spec = {path: sharding.spec for path, sharding in shardings.items()}
    assert spec["language.layers.query.kernel"] == PartitionSpec(None, "fsdp", "tensor")
    assert spec["language.layers.down.kernel"] == PartitionSpec(None, "tensor", "fsdp")
    assert spec["vision.layers.up.bias"] == PartitionSpec(None, "tensor")
    assert spec["language.embedding.table"] == PartitionSpec("tensor", "fsdp")
    assert spec["language.norm.scale"] == PartitionSpec()
    large = [path for path, struct in arch.shapes.items() if struct.size > 20_000]
    assert large
    assert all("fsdp" in spec[path] for path in large)


def test_what_does_not_divide_is_replicated_and_logged(small_checkpoint, caplog):
    arch = architecture(small_checkpoint, dtype="float32", remat="none")
    with caplog.at_level(logging.WARNING):
        shardings = parameter_shardings(arch.shapes, make_mesh(MeshConfig(data=1, fsdp=1, tensor=8)), arch.family.axes)
    assert shardings["language.layers.down.kernel"].spec == PartitionSpec(None, "tensor", "fsdp")
    odd = {"a.up.kernel": jax.ShapeDtypeStruct((32, 12), np.float32)}
    with caplog.at_level(logging.WARNING):
        spec = parameter_shardings(odd, make_mesh(MeshConfig(data=1, fsdp=1, tensor=8)))["a.up.kernel"].spec
    assert spec == PartitionSpec("fsdp", None)
    assert "a.up.kernel: 12 does not divide over tensor=8; replicated there" in caplog.text


def test_what_falls_back_is_logged_once(caplog):
    shapes = {
        "b.up.kernel": jax.ShapeDtypeStruct((32, 13), np.float32),
        "b.unheard": jax.ShapeDtypeStruct((4,), np.float32),
    }
    with caplog.at_level(logging.WARNING):
        made = [parameter_shardings(shapes, make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))) for _ in range(3)]
    assert {path: place.spec for path, place in made[-1].items()} == {
        "b.up.kernel": PartitionSpec("fsdp", None),
        "b.unheard": PartitionSpec(),
    }
    assert caplog.messages == [
        "b.up.kernel: 13 does not divide over tensor=2; replicated there",
        "b.unheard: no sharding rule names it; replicated",
    ]


@pytest.mark.parametrize("name", ["llava-1.5-7b-hf", "blip2-opt-2.7b", "idefics-9b"])
def test_published_models_are_split(name, caplog):
    arch = architecture(folders.PUBLISHED / name, dtype="bfloat16", remat="full", lora=LoraConfig())
    placed = parameter_shardings(arch.shapes, make_mesh(MeshConfig(data=1, fsdp=4, tensor=2)), arch.family.axes)
    assert not caplog.records, "every parameter has a rule, and every axis divides"
    large = [path for path, leaf in arch.shapes.items() if leaf.size > 1_000_000 and ".lora." not in path]
    assert sum(arch.shapes[path].size for path in large) > 3e9
    assert all("fsdp" in placed[path].spec for path in large)


def test_state_is_placed_like_its_parameters(small_config):
    config = dataclasses.replace(
        small_config,
        mesh=MeshConfig(data=2, fsdp=2, tensor=2),
        model=dataclasses.replace(small_config.model, trainable="all"),
    )
    setup, trainable = prepare(load_model(config.model, config.mesh, config.seed), config.model.trainable, config.train)
    state = setup.initial(trainable)
    place = {path: value.sharding for path, value in state.parameters.items()}
    assert place == {path: setup.model.shardings[path] for path in place}
    moments = state.optimizer[1][0]
    for tree in (moments.mu, moments.nu):
        assert {path: value.sharding for path, value in tree.items()} == place
    piece = state.parameters["language.layers.query.kernel"].addressable_shards[0].data
    assert piece.size * 4 == state.parameters["language.layers.query.kernel"].size


def test_initialisation_never_holds_a_whole_parameter(small_config):
    config = dataclasses.replace(
        small_config,
        mesh=MeshConfig(data=1, fsdp=8),
        model=ModelConfig(path=small_config.model.path, init="random"),
    )
    model = load_model(config.model, config.mesh, config.seed)
    kernel = model.parameters["language.layers.up.kernel"]
    assert {shard.data.size * 8 for shard in kernel.addressable_shards} == {kernel.size}


@pytest.mark.parametrize("config", [*MESHES.values(), MeshConfig(data=1, fsdp=1, tensor=8)])
def test_a_placed_batch_comes_back_row_by_row(config):
    mesh = make_mesh(config)
    rows = np.arange(48, dtype=np.int32).reshape(16, 3)
    images = np.arange(16 * 12, dtype=np.uint8).reshape(16, 1, 1, 2, 2, 3)
    batch = Batch(images, rows, rows, rows, rows % 2 == 0, rows[:, 0], rows[:, 1])
    assert local_places(16, mesh) == list(range(16))
    placed = place_batch(batch, mesh)
    assert isinstance(placed.tokens, jax.Array)
    assert placed.tokens.sharding == batch_sharding(mesh)
    for mine, back in zip(jax.tree.leaves(batch), jax.tree.leaves(placed), strict=True):
        np.testing.assert_array_equal(local_rows(back), mine)


@pytest.mark.parametrize(
    "mesh", [MeshConfig(data=3), MeshConfig(data=-1, fsdp=3), MeshConfig(data=16), MeshConfig(data=2, fsdp=2, tensor=1)]
)
def test_meshes_that_do_not_fit_are_refused(mesh):
    with pytest.raises(UserError, match="does not fit 8 device"):
        make_mesh(mesh)
