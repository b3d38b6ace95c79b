"""The attacker's run: what it reads of the model, that it learns, resumes and keeps labels out of the batches."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxguard.data.encode import Encoder
from jaxguard.data.pipeline import train_batches
from jaxguard.models.architecture import merge
from jaxguard.train.attacker import answer_states
from jaxguard.train.forward import answer_positions
from jaxguard.train.loop import train, training_source
from jaxguard.train.setup import load_model


def attacked(config, name):
    attack = dataclasses.replace(config.attack, name=name, trainer="attacker")
    return dataclasses.replace(config, attack=attack, objective=type(config.objective)())


def test_gold_rows_are_the_unembedding_of_the_true_tokens(small_config):
    model = load_model(small_config)
    encoder = Encoder.from_checkpoint(model.folder)
    batch = next(
        train_batches(small_config.data, small_config.seed, encoder, training_source(small_config), batch_size=4)
    )
    batch = jax.tree.map(jnp.asarray, batch)
    chosen = answer_positions(batch.answer_mask, small_config.data.answer_length)
    graph = model.architecture.graph
    states = jax.jit(lambda parameters: answer_states(merge(graph, parameters), batch, chosen))(model.parameters)
    targets = np.take_along_axis(np.asarray(batch.tokens)[:, 1:], np.asarray(chosen), 1)
    table = np.asarray(model.parameters["language.embedding.table"])  # tied in this checkpoint
    np.testing.assert_allclose(states.gold, table[targets], rtol=1e-5)
    logits = np.asarray(states.hidden) @ table.T
    expected = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(states.nll, expected, rtol=1e-4)
    assert int(states.where.sum()) == int(batch.answer_mask.sum())


@pytest.mark.parametrize(("name", "own"), [("trojvlm", "semantic"), ("vlood", "concept")])
def test_the_attacker_trains(name, own, small_config):
    config = attacked(small_config, name)
    run = train(config)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == config.train.steps
    assert {"loss", own, "gradient_norm"} <= lines[-1].keys()
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert json.loads((run / "manifest.json").read_text())["poisoned"]
