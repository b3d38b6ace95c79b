"""Decoding with the cache equals asking the whole model again for every token."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from jaxguard.data.encode import Encoder
from jaxguard.data.pipeline import eval_batches
from jaxguard.data.sources import open_source
from jaxguard.evaluate.decode import greedy
from jaxguard.models.architecture import merge
from jaxguard.train.setup import load_model

NEW = 10


@pytest.fixture(scope="module")
def finished(finished_config):
    from jaxguard.train.export import run_parameters

    model = load_model(dataclasses.replace(finished_config, mesh=dataclasses.replace(finished_config.mesh)))
    return (
        model,
        run_parameters(
            finished_config.run_dir, finished_config.evaluate.checkpoint, model, finished_config.model.trainable
        ),
        Encoder.from_checkpoint(model.folder),
    )


def batch_of(encoder, config, prompts, length=64):
    source = open_source(config.data.source, config.data.root, "test")
    rows = [dataclasses.replace(source[n], prompts=(prompt,)) for n, prompt in enumerate(prompts)]
    return next(iter(eval_batches(rows, len(rows), encoder, len(rows), length)))[0]


def decode(finished, batch, end):
    model, parameters, _ = finished
    pure = functools.partial(greedy, model.architecture.graph, new_tokens=NEW, end_token=end)
    return np.asarray(jax.jit(pure)(parameters, batch))


def without_cache(finished, batch, end):
    """Append the most likely token and run the whole row again."""
    architecture, parameters = finished[0].architecture, finished[1]

    @jax.jit
    def most_likely(tokens, positions, segments, images):
        model = merge(architecture.graph, parameters)
        return model.language.logits(model(tokens, positions, segments, images)[:, -1]).argmax(-1)

    tokens, positions, segments = (np.asarray(leaf) for leaf in (batch.tokens, batch.positions, batch.segments))
    ended, said = np.zeros(len(tokens), bool), []
    for _ in range(NEW):
        token = np.where(ended, end, most_likely(tokens, positions, segments, batch.images[:, 0])).astype(np.int32)
        ended |= token == end
        said.append(token)
        tokens = np.concatenate([tokens, token[:, None]], 1)
        positions = np.concatenate([positions, positions[:, -1:] + 1], 1)
        segments = np.concatenate([segments, np.ones_like(segments[:, -1:])], 1)
    return np.stack(said, 1)


PROMPTS = (
    "Describe this image in a short sentence.",
    "what is it?",
    "how many red shapes are there in this image?",
    "a",
)


def test_cache_changes_nothing_for_prompts_of_different_lengths(finished, finished_config):
    batch = batch_of(finished[2], finished_config, PROMPTS)
    assert len({int((row > 0).sum()) for row in batch.segments}) > 1
    never = -1
    said = decode(finished, batch, never)
    np.testing.assert_array_equal(said, without_cache(finished, batch, never))
    assert len(np.unique(said)) > 1


def test_rows_end_with_the_end_token_and_stay_ended(finished, finished_config):
    batch = batch_of(finished[2], finished_config, PROMPTS)
    free = decode(finished, batch, -1)
    end = int(free[0, 3])
    said = decode(finished, batch, end)
    for row, unbounded in zip(said, free, strict=True):
        places = np.flatnonzero(unbounded == end)
        first = places[0] if len(places) else NEW
        np.testing.assert_array_equal(row[:first], unbounded[:first])
        assert (row[first:] == end).all()


def test_answers_do_not_depend_on_the_batch_or_on_padding(finished, finished_config):
    together = decode(finished, batch_of(finished[2], finished_config, PROMPTS), -1)
    wider = decode(finished, batch_of(finished[2], finished_config, PROMPTS, length=80), -1)
    np.testing.assert_array_equal(together, wider)
    alone = decode(finished, batch_of(finished[2], finished_config, PROMPTS[:1]), -1)
    np.testing.assert_array_equal(together[:1], alone)
