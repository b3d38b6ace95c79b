"""Micro-batches, run sequentially, give the loss and the gradient of the whole batch."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxguard.config import MeshConfig
from jaxguard.data.encode import Encoder
from jaxguard.data.pipeline import train_batches
from jaxguard.data.sources import open_source
from jaxguard.experiments.configurations import validate
from jaxguard.train.setup import CompiledStep, load_model, prepare
from jaxguard.train.sharding import make_mesh, micro_batches, place_batch
from jaxguard.train.step import StepPlan

PARTS = 2


def first_step(config, accumulate):
    """Metrics and first moments (a tenth of the clipped gradient) of one step, and the batch's answer mask."""
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, accumulate=accumulate))
    validate(config)
    model = load_model(config.model, config.mesh, config.seed)
    encoder = Encoder.from_checkpoint(model.folder)
    source = open_source(config.data.source, config.data.root, "train")
    rows = config.train.batch_size
    batch = next(train_batches(config.data, config.seed, encoder, source, batch_size=rows, view=config.view))
    setup, trainable = prepare(model, config.model.trainable, config.train)
    placed = place_batch(batch, model.mesh)
    state, metrics = CompiledStep(setup, StepPlan.of(config, encoder.eos_id), placed)(setup.initial(trainable), placed)
    moments = {path: np.asarray(value) for path, value in state.optimizer[1][0].mu.items()}
    return jax.device_get(metrics), moments, batch.answer_mask


@pytest.mark.parametrize("trainable", ["lora", "all"])
def test_the_whole_batch_is_what_counts(small_config, trainable):
    config = dataclasses.replace(
        small_config,
        mesh=MeshConfig(data=2, fsdp=2, tensor=2),
        model=dataclasses.replace(small_config.model, trainable=trainable),
        view=dataclasses.replace(small_config.view, rows=0.5),
        train=dataclasses.replace(small_config.train, batch_size=16),
    )
    expected, moments, answers = first_step(config, 1)
    counts = answers.reshape(4, PARTS, -1).sum((0, 2))
    assert counts[0] != counts[1], "with equal counts a mean of means would pass too"
    found, accumulated, _ = first_step(config, PARTS)
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-6, err_msg=name)
    assert set(accumulated) == set(moments)
    largest = max(np.abs(value).max() for value in moments.values())
    assert largest > 0
    for path, value in moments.items():
        np.testing.assert_allclose(accumulated[path], value, rtol=1e-4, atol=1e-6 * largest, err_msg=path)


def test_rows_stay_on_their_devices():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    rows = np.arange(16)
    parts = jax.jit(lambda x: micro_batches(x, PARTS, mesh))(rows)
    np.testing.assert_array_equal(parts, [[0, 1, 4, 5, 8, 9, 12, 13], [2, 3, 6, 7, 10, 11, 14, 15]])
    held = {shard.device: set(shard.data.ravel().tolist()) for shard in parts.addressable_shards}
    whole = jax.device_put(rows, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(("data", "fsdp"))))
    assert held == {shard.device: set(shard.data.tolist()) for shard in whole.addressable_shards}
