"""Decoding with the cache equals running the whole model again for every token."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from jaxguard.config import MeshConfig, ModelConfig
from jaxguard.data.encode import Encoder
from jaxguard.data.pipeline import eval_batches
from jaxguard.data.sources import open_source
from jaxguard.evaluate.decode import beam, greedy
from jaxguard.models.architecture import merge
from jaxguard.train.setup import load_model

NEW = 10


@pytest.fixture(scope="module")
def untrained(small_checkpoint):
    """A model whose answers are many different tokens, by its weights before any training, and its encoder."""
    model = load_model(ModelConfig(path=str(small_checkpoint)), MeshConfig(), seed=0)
    return model, Encoder.from_checkpoint(model.folder)


def batch_of(encoder, config, prompts, length=64):
    source = open_source(config.data.source, config.data.root, "test")
    rows = [dataclasses.replace(source[n], prompts=(prompt,)) for n, prompt in enumerate(prompts)]
    return next(iter(eval_batches(rows, len(rows), encoder, len(rows), length)))[0]


def decode(untrained, batch, end, stops=()):
    model, _ = untrained
    pure = functools.partial(greedy, model.architecture.graph, new_tokens=NEW, end_token=end, stops=stops)
    return np.asarray(jax.jit(pure)(model.parameters, batch))


def without_cache(untrained, batch, end):
    """Append the most likely token and run the whole row again."""
    architecture, parameters = untrained[0].architecture, untrained[0].parameters

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


def test_cache_changes_nothing_for_prompts_of_different_lengths(untrained, small_config):
    batch = batch_of(untrained[1], small_config, PROMPTS)
    assert len({int((row > 0).sum()) for row in batch.segments}) > 1
    never = -1
    said = decode(untrained, batch, never)
    np.testing.assert_array_equal(said, without_cache(untrained, batch, never))
    assert len(np.unique(said)) > 4


def test_rows_end_with_the_end_token_and_stay_ended(untrained, small_config):
    batch = batch_of(untrained[1], small_config, PROMPTS)
    free = decode(untrained, batch, -1)
    end = int(free[0, 3])
    assert (free[0, 4:] != end).any()
    said = decode(untrained, batch, end)
    for row, unbounded in zip(said, free, strict=True):
        places = np.flatnonzero(unbounded == end)
        first = places[0] if len(places) else NEW
        np.testing.assert_array_equal(row[:first], unbounded[:first])
        assert (row[first:] == end).all()
    other = int(next(token for token in free[1] if token != end))
    for row, unbounded in zip(decode(untrained, batch, end, (other,)), free, strict=True):
        first = next((place for place, token in enumerate(unbounded) if token in (end, other)), NEW)
        np.testing.assert_array_equal(row[: first + 1], unbounded[: first + 1])
        assert (row[first + 1 :] == end).all()


def test_answers_do_not_depend_on_the_batch_or_on_padding(untrained, small_config):
    together = decode(untrained, batch_of(untrained[1], small_config, PROMPTS), -1)
    wider = decode(untrained, batch_of(untrained[1], small_config, PROMPTS, length=80), -1)
    np.testing.assert_array_equal(together, wider)
    alone = decode(untrained, batch_of(untrained[1], small_config, PROMPTS[:1]), -1)
    np.testing.assert_array_equal(together[:1], alone)


def beams_without_cache(model, batch, end, *, beams, new):
    """Of each row the sequence that beam search finds: all growing ones run whole again for every token."""

    @jax.jit
    def next_log_p(tokens, positions, segments, images):
        network = merge(model.architecture.graph, model.parameters)
        return jax.nn.log_softmax(network.language.logits(network(tokens, positions, segments, images)[:, -1]))

    best = []
    for row in range(len(batch.tokens)):
        leaves = (batch.tokens, batch.positions, batch.segments, batch.images[:, 0])
        tokens, positions, segments, images = (np.repeat(np.asarray(leaf[row : row + 1]), beams, 0) for leaf in leaves)
        growing, ended = [((), 0.0)], []
        for count in range(1, new + 1):
            said = np.array([growing[n % len(growing)][0] for n in range(beams)], np.int32).reshape(beams, -1)
            after = positions[:, -1:] + 1 + np.arange(count - 1, dtype=np.int32)[None]
            whole = (np.concatenate(pair, 1) for pair in ((tokens, said), (positions, after), (segments, said * 0 + 1)))
            log_p = np.asarray(next_log_p(*whole, images))[: len(growing)]
            sums = log_p + np.array([score for _, score in growing], np.float32)[:, None]
            parents, chosen = np.unravel_index(np.argsort(-sums, axis=None)[: 2 * beams], sums.shape)
            found = [((*growing[n][0], int(t)), sums[n, t]) for n, t in zip(parents, chosen, strict=True)]
            ended += [(score / count, one) for one, score in found[:beams] if one[-1] == end or count == new]
            ended = sorted(ended, reverse=True)[:beams]
            growing = [one for one in found if one[0][-1] != end][:beams]
            if len(ended) == beams and growing[0][1] / count <= ended[-1][0]:
                break
        best.append((list(ended[0][1]) + [end] * new)[:new])
    return best


def test_beams_are_those_of_a_search_without_a_cache(untrained, small_config):
    """Also where some end early: by the token that the best one has at its second place."""
    model, new, beams = untrained[0], 5, 3
    batch = batch_of(untrained[1], small_config, PROMPTS[1:3])

    def search(end):
        pure = functools.partial(beam, model.architecture.graph, new_tokens=new, end_token=end, beams=beams)
        return np.asarray(jax.jit(pure)(model.parameters, batch)).tolist()

    free = search(-1)
    assert free == beams_without_cache(model, batch, -1, beams=beams, new=new)
    end = free[0][1]
    assert search(end) == beams_without_cache(model, batch, end, beams=beams, new=new) != free
