"""Attention and masks against NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxguard.models.attention import Causal, attention, causal_mask, visible


def by_hand(query, key, value, mask):
    out = np.zeros_like(query, dtype=np.float64)
    groups = query.shape[2] // key.shape[2]
    for b, t, h in np.ndindex(*query.shape[:3]):
        scores = key[b, :, h // groups].astype(np.float64) @ query[b, t, h] / np.sqrt(query.shape[-1])
        weights = np.exp(scores - scores.max()) * mask[b, t]
        out[b, t, h] = (weights / weights.sum()) @ value[b, :, h // groups]
    return out


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_attention_equals_the_plain_sum(groups):
    rng = np.random.default_rng(0)
    query = rng.normal(size=(2, 5, 4, 8)).astype(np.float32)
    key, value = (rng.normal(size=(2, 6, groups, 8)).astype(np.float32) for _ in range(2))
    mask = rng.random((2, 5, 6)) < 0.5
    mask[..., 0] = True
    found = attention(*map(jnp.asarray, (query, key, value, mask)))
    np.testing.assert_allclose(found, by_hand(query, key, value, mask), atol=1e-5)


def test_rows_that_see_nothing_are_finite():
    ones = jnp.ones((1, 2, 1, 4), jnp.float32)
    assert np.isfinite(attention(ones, ones, ones, jnp.zeros((1, 2, 2), bool))).all()


def test_causal_mask_of_a_packed_row():
    segments = np.array([[0, 1, 1, 2, 2, 3, 0]], np.int32)
    expected = np.zeros((7, 7), bool)
    for query, keys in {1: [1], 2: [1, 2], 3: [1, 2, 3], 4: [1, 2, 3, 4], 5: [1, 2, 5], 0: [], 6: [1, 2]}.items():
        expected[query, keys] = True
    mask = causal_mask(segments)
    assert not isinstance(mask, Causal)
    np.testing.assert_array_equal(mask[0], expected)


def test_padding_is_never_seen():
    segments = np.array([[0, 0, 1, 1]], np.int32)
    assert not np.asarray(visible(segments, segments))[..., :2].any()
