"""Views of different lengths and of some rows only, against running every view whole and separately."""

import dataclasses
import json
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxguard.config import MeshConfig, ViewConfig
from jaxguard.data.encode import Encoder
from jaxguard.data.pipeline import train_batches
from jaxguard.data.sources import open_source
from jaxguard.models import vit
from jaxguard.models.architecture import architecture, merge
from jaxguard.models.attention import attention, causal_mask
from jaxguard.models.families.llava.model import Llava
from jaxguard.train.forward import Viewed, answer_positions, hidden_states, token_statistics
from jaxguard.train.loop import train
from jaxguard.train.sharding import batch_sharding, make_mesh

DROP = ViewConfig(patch_size=16, shuffle_share=0.5, mask_share=0.5, mask_fill="drop")
FULL = ViewConfig(patch_size=16)
EVERY = Viewed.of(Fraction(1))
SOME = {"half": Fraction(1, 2), "three quarters": Fraction(3, 4)}
ANSWERS = 24


@pytest.fixture(scope="module")
def small(small_checkpoint):
    arch = architecture(small_checkpoint, dtype="float32", remat="none")
    return arch, jax.jit(lambda: arch.initial(3))()


@pytest.fixture
def make(small_config, small_checkpoint):
    """A batch of eight rows for any view."""
    encoder = Encoder.from_checkpoint(small_checkpoint)

    def batch(view, **data):
        config = dataclasses.replace(small_config, view=view, data=dataclasses.replace(small_config.data, **data))
        source = open_source(config.data.source, config.data.root, "train")
        made = next(train_batches(config.data, config.seed, encoder, source, batch_size=8, view=view))
        return jax.tree.map(jnp.asarray, made)

    return batch


def both(small, batch, viewed=EVERY):
    """Hidden states of both views at the answers, in one call."""
    arch, parameters = small
    at = answer_positions(batch.answer_mask, ANSWERS)
    run = jax.jit(lambda parameters: hidden_states(merge(arch.graph, parameters), batch, at, viewed))
    return run(parameters), at


def alone(small, batch, view, at, stays=None, monkeypatch=None):
    """Hidden states of one whole view; patches that do not stay are seen by no other patch and no token."""
    arch, parameters = small
    mask = causal_mask(batch.segments)
    if stays is not None:
        keys = jnp.pad(jnp.asarray(stays), ((0, 0), (1, 0)), constant_values=True)[:, None]
        monkeypatch.setattr(vit, "attention", lambda q, k, v, _: attention(q, k, v, jnp.repeat(keys, k.shape[1], 1)))
        mask &= np.asarray(tokens_that_stay(arch, batch, stays))[:, None]

    @jax.jit
    def run(parameters):
        model = merge(arch.graph, parameters)
        embedded, _ = model.embed_inputs(batch.tokens, batch.segments, batch.images[:, view])
        hidden, cache = model.language(embedded, batch.positions, mask, keep_cache=True)
        return jnp.take_along_axis(hidden, at[..., None], axis=1), cache

    return run(parameters)


def tokens_that_stay(arch, batch, stays):
    """Per row, every token but those of patches that do not stay."""
    found = np.ones(batch.tokens.shape, bool)
    found[batch.tokens == arch.config.image_token_index] = stays.reshape(-1)
    return found


def patches_that_stay(batch, patches=16):
    stays = np.zeros((len(batch.tokens), patches), bool)
    np.put_along_axis(stays, batch.kept[:, 0], True, axis=1)
    return stays


@pytest.mark.parametrize("pack", [1, 3])
def test_dropping_patches_equals_hiding_them(small, make, monkeypatch, pack):
    batch = make(DROP, pack=pack, length=96, answer_length=48)
    assert batch.kept.shape == (8, 1, 8)
    (first, second), at = both(small, batch)
    np.testing.assert_allclose(first, alone(small, batch, 0, at)[0], atol=1e-5)
    hidden, _ = alone(small, batch, 1, at, patches_that_stay(batch), monkeypatch)
    answers = np.take_along_axis(batch.answer_mask[:, 1:], np.asarray(at), 1)
    assert answers.sum() > 30
    np.testing.assert_allclose(np.asarray(second)[answers], np.asarray(hidden)[answers], atol=1e-5)


def test_keys_and_values_of_what_stays_are_the_same(small, make, monkeypatch):
    batch = make(DROP)
    arch, parameters = small

    @jax.jit
    def run(parameters):
        model = merge(arch.graph, parameters)
        columns = model.kept_columns(jnp.asarray(batch.tokens), jnp.asarray(batch.kept))
        tokens, positions, segments = (
            jnp.take_along_axis(jnp.asarray(leaf), columns, 1)
            for leaf in (batch.tokens, batch.positions, batch.segments)
        )
        embedded, _ = model.embed_inputs(tokens, segments, batch.images[:, 1], batch.kept)
        return columns, model.language(embedded, positions, causal_mask(segments), keep_cache=True)[1]

    columns, short = run(parameters)
    assert columns.shape == (8, 64 - 8)
    at = answer_positions(batch.answer_mask, ANSWERS)
    _, whole = alone(small, batch, 1, at, patches_that_stay(batch), monkeypatch)
    real = np.take_along_axis(batch.segments, np.asarray(columns), 1) > 0
    for ours, theirs in zip(short, whole, strict=True):
        expected = np.take_along_axis(np.asarray(theirs), np.asarray(columns)[None, :, :, None, None], axis=2)
        np.testing.assert_allclose(np.asarray(ours)[:, real], expected[:, real], atol=1e-5)


def test_the_class_token_of_an_image_stays():
    config = SimpleNamespace(vision=SimpleNamespace(patches=4), extras=1, image_token_index=9)
    tokens, kept = jnp.array([[1, 9, 9, 9, 9, 9, 2, 3]]), jnp.array([[[1, 3]]])
    model: Any = SimpleNamespace(config=config)
    assert Llava.kept_columns(model, tokens, kept).tolist() == [[0, 1, 3, 5, 6, 7]]


@pytest.mark.parametrize(("view", "share"), [(FULL, "half"), (DROP, "three quarters")], ids=["stacked", "packed"])
def test_views_of_some_rows_are_those_rows_of_the_views_of_all(small, make, view, share):
    batch, viewed = make(view), Viewed.of(SOME[share])
    (first, second), at = both(small, batch)
    (some_first, some_second), _ = both(small, batch, viewed)
    assert some_second.shape[0] == 8 * SOME[share]
    answers = np.take_along_axis(batch.answer_mask[:, 1:], np.asarray(at), 1)
    np.testing.assert_allclose(np.asarray(some_first)[answers], np.asarray(first)[answers], atol=1e-5)
    mine, theirs = np.asarray(some_second), np.asarray(viewed.rows(second))
    there = np.asarray(viewed.rows(jnp.asarray(answers)))
    np.testing.assert_allclose(mine[there], theirs[there], atol=1e-5)


def test_rows_and_others_are_all_rows():
    rows = jnp.arange(12)
    viewed = Viewed.of(Fraction(2, 3))
    assert viewed.rows(rows).tolist() == [0, 1, 3, 4, 6, 7, 9, 10]
    assert viewed.others(rows).tolist() == [2, 5, 8, 11]
    first, second = viewed.unstack(viewed.stack(rows, -viewed.rows(rows)))
    assert (first.tolist(), second.tolist()) == (rows.tolist(), (-viewed.rows(rows)).tolist())


def test_the_fused_head_on_a_mesh_gives_what_the_plain_one_gives(small, make):
    arch, parameters = small
    mesh, batch = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)), make(DROP)
    at, viewed = answer_positions(batch.answer_mask, ANSWERS), Viewed.of(SOME["half"])

    def run(head):
        def statistics(parameters, batch):
            model = merge(arch.graph, parameters)
            targets = jnp.take_along_axis(batch.tokens[:, 1:], at, axis=1)
            return token_statistics(model, *hidden_states(model, batch, at, viewed), targets, viewed, mesh, head)

        return jax.jit(statistics, in_shardings=(None, batch_sharding(mesh)))(parameters, batch)

    for ours, theirs in zip(jax.tree.leaves(run("fused")), jax.tree.leaves(run("reference")), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-5)


def test_a_run_with_dropped_patches_and_half_the_rows_is_the_same_on_another_mesh(small_config):
    view = dataclasses.replace(DROP, rows=0.5)
    curves = []
    for name, mesh in {"a": MeshConfig(data=2, fsdp=2, tensor=2), "b": MeshConfig(data=1, tensor=8)}.items():
        steps = dataclasses.replace(small_config.train, steps=3)
        config = dataclasses.replace(small_config, name=name, view=view, mesh=mesh, train=steps)
        lines = (train(config) / "metrics.jsonl").read_text().splitlines()
        curves.append([[json.loads(line)[key] for key in ("loss", "ce_view", "divergence")] for line in lines])
    first, second = curves
    np.testing.assert_allclose(first, second, rtol=1e-4)
    assert np.asarray(curves[0])[:, 2].min() > 0
