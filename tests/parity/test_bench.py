"""The torch code that `jaxguard bench torch` and `bench data` time computes the same as ours."""

import dataclasses

import numpy as np
import pytest
import torch

from jaxguard.bench import data_loader as loader
from jaxguard.bench.step import PAIRED, Case, TimedStep, first_batch
from jaxguard.bench.torch_step import TorchStep
from jaxguard.config import ObjectiveConfig
from jaxguard.data.encode import Encoder
from jaxguard.data.pipeline import Example, train_batches
from jaxguard.train.setup import load_model


@pytest.mark.parametrize("trainable", ["projector", "language", "all"])
@pytest.mark.parametrize("objective", [ObjectiveConfig(), dataclasses.replace(PAIRED, entropy_min=0.1)])
def test_losses_of_several_steps_are_the_same(small_config, objective, trainable):
    """Without warm-up and decay of the learning rate, which the torch step does not have."""
    config = dataclasses.replace(
        small_config,
        objective=objective,
        model=dataclasses.replace(small_config.model, trainable=trainable),
        train=dataclasses.replace(small_config.train, warmup=0, final_lr_ratio=1.0, learning_rate=1e-3),
    )
    model = load_model(config.model, config.mesh, config.seed)
    encoder = Encoder.from_checkpoint(model.folder)
    batch = first_batch(config, encoder)
    ours = TimedStep(Case(config), model, encoder, batch)
    theirs = TorchStep(config, model.architecture, model.folder, batch)
    losses, expected = np.array([(float(ours()["loss"]), theirs()) for _ in range(4)]).T
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    assert losses[-1] != losses[0]


def test_the_torch_loader_makes_the_same_rows(small_config, monkeypatch):
    monkeypatch.setattr(loader, "PHOTOGRAPHS", 2)
    config = loader.settings(small_config, 48)
    with loader.photographs(16, 48, 96, 64) as (encoder, source):
        theirs = iter(loader._torch_loader(Example(config.data, config.view, config.seed, encoder, source), 16, 8, 1))
        batches = [next(theirs) for _ in range(2)]
        ours = train_batches(config.data, config.seed, encoder, source, batch_size=16, view=config.view)
        batch = next(ours)
    order = np.argsort(batch.ids)
    assert torch.cat([one["id"] for one in batches]).tolist() == batch.ids[order].tolist()
    for name in ("images", "tokens", "positions", "segments", "answer_mask"):
        made = torch.cat([one[name] for one in batches]).numpy()
        np.testing.assert_array_equal(made, getattr(batch, name)[order])


def test_both_loaders_are_timed(small_config, monkeypatch):
    monkeypatch.setattr(loader, "PHOTOGRAPHS", 2)
    monkeypatch.setattr(loader, "TURNS", 1)
    rows = loader.compare(small_config, 1, 48)
    assert [row["case"] for row in rows] == ["loader alone, 48 px", "torch DataLoader, 2 workers, 48 px"]
    assert all(row["rows_per_second"] > 0 for row in rows)
