"""The validation loss: every row of the split counts once, for any batch size."""

import dataclasses
import json

import numpy as np
import pytest

from jaxguard.data.encode import Encoder
from jaxguard.errors import UserError
from jaxguard.evaluate.run import evaluate
from jaxguard.train.checkpoint import Checkpoints
from jaxguard.train.export import run_parameters
from jaxguard.train.loop import train
from jaxguard.train.setup import load_model, prepare
from jaxguard.train.validation import Validation


def changed(config, **values):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **values))


def test_a_last_batch_that_is_not_full_counts_only_its_rows(small_config):
    model = load_model(small_config.model, small_config.mesh, small_config.seed)
    encoder = Encoder.from_checkpoint(model.folder)
    setup, trainable = prepare(model, small_config.model.trainable, small_config.train)
    losses = []
    for size in (8, 24):  # 5 and 13 rows are filled in
        config = changed(small_config, batch_size=size, validation=11)
        losses.append(Validation(setup, encoder, data=config.data, seed=0, train=config.train)(trainable))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)
    few = changed(small_config, validation=17).train
    with pytest.raises(UserError, match=r"train.validation is 17: 'validation' of .* has 16 rows"):
        Validation(setup, encoder, data=small_config.data, seed=0, train=few)


def test_a_run_of_the_projector_alone_is_evaluated_with_its_best_parameters(small_config, monkeypatch):
    """The loss of a run so short only falls; with its sign turned the best is not the newest."""
    measured = Validation.__call__
    monkeypatch.setattr(Validation, "__call__", lambda self, parameters: -measured(self, parameters))
    config = changed(small_config, steps=3, save_every=1, keep=1, keep_best=1, validation=8, learning_rate=0.3)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, trainable="projector"))
    records = [json.loads(line) for line in (train(config) / "metrics.jsonl").read_text().splitlines()]
    loss = {record["step"]: record["validation"] for record in records if "validation" in record}
    best = min(loss, key=loss.__getitem__)
    assert set(loss) == {1, 2, 3}
    assert {path.name for path in (config.run_dir / "checkpoints").iterdir()} == {str(best), "3"}
    assert best != 3
    wanted = dataclasses.replace(config, evaluate=dataclasses.replace(config.evaluate, checkpoint="best", examples=8))
    model = load_model(config.model, config.mesh, config.seed)
    setup, trainable = prepare(model, config.model.trainable, config.train)
    found, newest = (
        {
            p: v
            for p, v in run_parameters(one.run_dir, one.evaluate.checkpoint, model, one.model.trainable).items()
            if p in trainable
        }
        for one in (wanted, config)
    )
    with Checkpoints(config.run_dir) as checkpoints:
        saved, _ = checkpoints.restore(setup.abstract, best)
    for path, value in saved.parameters.items():
        np.testing.assert_array_equal(found[path], value)
        assert (np.asarray(newest[path]) != np.asarray(value)).any()
    assert evaluate(wanted).examples == {"clean": 8, "triggered": 8}
