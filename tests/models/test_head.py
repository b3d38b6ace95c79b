"""Logits are dot products with rows of the output head, for both layouts of its weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxguard.models.families.idefics.gated import GatedConfig, GatedLlama
from jaxguard.models.llama import LlamaConfig
from jaxguard.models.opt import Opt, OptConfig

LLAMA: dict[str, Any] = {
    "vocab_size": 20,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def opt(tied):
    config = OptConfig(20, 8, 1, 12, num_attention_heads=2, max_position_embeddings=8, tie_word_embeddings=tied)
    return Opt(config, remat="none", rngs=nnx.Rngs(0))


def gated(tied):
    config = GatedConfig(LlamaConfig(**LLAMA, tie_word_embeddings=tied), vision_width=8, additional_vocab_size=3)
    return GatedLlama(config, remat="none", rngs=nnx.Rngs(0))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("make", "size"), [(opt, 20), (gated, 23)])
def test_logits_are_products_with_rows(make, size, tied):
    model = make(tied)
    hidden, tokens = jax.random.normal(jax.random.key(1), (2, 5, 8)), jnp.arange(size)
    rows = model.unembedding.rows(tokens)
    assert len(np.unique(rows, axis=0)) == model.unembedding.vocabulary == size
    np.testing.assert_allclose(model.logits(hidden), hidden @ rows.T, rtol=1e-5, atol=1e-6)
    if tied:
        np.testing.assert_array_equal(rows, model.embed(tokens[None], jnp.float32)[0])


def test_additional_rows_that_train_stand_behind_narrower_frozen_ones():
    model = gated(tied=False)
    model.head.kernel = nnx.Param(model.head.kernel[...].astype(jnp.bfloat16))
    hidden = jax.random.normal(jax.random.key(1), (2, 5, 8), jnp.bfloat16)
    assert model.logits(hidden).shape == (2, 5, 23)
    np.testing.assert_array_equal(model.unembedding.weight[:, 20:], model.additional_head.kernel[...])
