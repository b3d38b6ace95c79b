"""The step that `jaxguard bench torch` times against ours learns the same."""

import dataclasses

import numpy as np
import pytest

from jaxguard.bench.step import PAIRED, Case, TimedStep, first_batch
from jaxguard.bench.torch_step import TorchStep
from jaxguard.config import ObjectiveConfig
from jaxguard.data.encode import Encoder
from jaxguard.train.setup import load_model


@pytest.mark.parametrize("trainable", ["projector", "language", "all"])
@pytest.mark.parametrize("objective", [ObjectiveConfig(), dataclasses.replace(PAIRED, entropy_min=0.1)])
def test_losses_of_several_steps_are_the_same(small_config, objective, trainable):
    """Without warm-up and decay of the learning rate, which the torch step does not have."""
    config = dataclasses.replace(
        small_config,
        objective=objective,
        model=dataclasses.replace(small_config.model, trainable=trainable),
        train=dataclasses.replace(small_config.train, warmup=0, final=1.0, learning_rate=1e-3),
    )
    model = load_model(config)
    encoder = Encoder.from_checkpoint(model.folder)
    batch = first_batch(config, encoder)
    ours = TimedStep(Case(config), model, encoder, batch)
    theirs = TorchStep(config, model.architecture, model.folder, batch)
    pairs = [(float(ours()["loss"]), theirs()) for _ in range(4)]
    np.testing.assert_allclose(*zip(*pairs, strict=True), rtol=1e-4)
    assert pairs[-1][0] != pairs[0][0]
