"""The probe of clean and poisoned rows: its values, and that training is unaffected."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxguard.attacks.poison import PoisonedSource
from jaxguard.data.encode import Encoder
from jaxguard.data.pipeline import train_batches
from jaxguard.errors import UserError
from jaxguard.models import folders
from jaxguard.models.architecture import merge
from jaxguard.train.loop import train, training_source
from jaxguard.train.probe import Probe, Sample, probe_rows
from jaxguard.train.setup import load_model, prepare


def probing(config, count):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, probe=count))


def records(config):
    return [json.loads(line) for line in (config.run_dir / "metrics.jsonl").read_text().splitlines()]


def test_a_probe_is_logged_and_changes_no_loss(finished_config, tmp_path):
    probed = dataclasses.replace(probing(finished_config, 4), out=tmp_path)
    train(probed)
    found = [record for record in records(probed) if "clean_nll" in record]
    assert [record["step"] for record in found] == list(range(1, 41))
    names = {f"{group}_{name}" for group in ("clean", "poisoned") for name in ("nll", "entropy", "divergence")}
    assert set(found[0]) == {"step"} | names
    assert all(np.isfinite(value) and value >= 0 for record in found for value in record.values())
    assert found[39]["poisoned_nll"] < found[0]["poisoned_nll"]
    losses = [[record["loss"] for record in records(run) if "loss" in record] for run in (finished_config, probed)]
    assert losses[0] == losses[1]


def test_rows_of_each_kind_fill_whole_batches(small_config):
    source = training_source(small_config)
    assert isinstance(source, PoisonedSource)
    poisoned = set(source.ids.tolist())
    for count, rows in ((4, 8), (3, 8), (5, 16), (1, 8)):
        chosen = [row.id for row in probe_rows(source, count, 8)]
        assert len(chosen) == len(set(chosen)) == rows
        assert len(poisoned & set(chosen)) == count
    clean = dataclasses.replace(small_config, attack=dataclasses.replace(small_config.attack, name="none"))
    assert [row.id for row in probe_rows(training_source(clean), 5, 8)] == list(range(8))
    with pytest.raises(UserError, match=r"train.probe is 60: the training split has only 36 clean rows"):
        probe_rows(source, 60, 8)


def test_the_numbers_are_those_of_plain_arithmetic(small_config):
    config = probing(small_config, 4)
    setup, trainable = prepare(load_model(config.model, config.mesh, config.seed), config.model.trainable, config.train)
    encoder, source = Encoder.from_checkpoint(folders.resolve(config.model.path)), training_source(config)
    found = Probe(setup, encoder, source, data=config.data, view=config.view, seed=config.seed, train=config.train)(
        trainable
    )

    rows = Sample(probe_rows(source, 4, config.train.batch_size))
    batch = next(train_batches(config.data, config.seed, encoder, rows, batch_size=len(rows), view=config.view))
    model = merge(setup.model.architecture.graph, setup.frozen, trainable)
    tokens, positions, segments = (jnp.asarray(leaf) for leaf in (batch.tokens, batch.positions, batch.segments))
    hidden = [model(tokens, positions, segments, jnp.asarray(batch.images[:, view])) for view in (0, 1)]
    log_p, log_q = (np.asarray(jax.nn.log_softmax(model.language.logits(one)))[:, :-1] for one in hidden)
    p, q, counts = np.exp(log_p), np.exp(log_q), batch.answer_mask[:, 1:]
    numbers = {
        "nll": -np.take_along_axis(log_p, batch.tokens[:, 1:, None], axis=-1)[..., 0],
        "entropy": -(p * log_p).sum(-1),
        "divergence": ((p - q) * (log_p - log_q)).sum(-1),
    }
    assert isinstance(source, PoisonedSource)
    poisoned = np.isin(batch.ids, source.ids)
    for group, members in (("clean", ~poisoned), ("poisoned", poisoned)):
        for name, values in numbers.items():
            expected = ((values * counts).sum(-1) / counts.sum(-1))[members].mean()
            assert found[f"{group}_{name}"] == pytest.approx(expected, rel=1e-3, abs=1e-6), (group, name)
