"""The six statistics against float64 NumPy, their properties and their gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxguard.objective.statistics import pair_statistics, token_statistics

FIELDS = ("nll_p", "nll_q", "kl_pq", "kl_qp", "entropy_p", "entropy_q")


def oracle(z, y, targets):
    """METHOD formulas in float64, written without log-softmax differences."""
    z, y = np.asarray(z, np.float64), np.asarray(y, np.float64)
    a = np.log(np.exp(z - z.max(-1, keepdims=True)).sum(-1)) + z.max(-1)
    b = np.log(np.exp(y - y.max(-1, keepdims=True)).sum(-1)) + y.max(-1)
    p, q = np.exp(z - a[..., None]), np.exp(y - b[..., None])
    d, rows = z - y, np.arange(len(targets))
    return {
        "nll_p": a - z[rows, targets],
        "nll_q": b - y[rows, targets],
        "kl_pq": (p * d).sum(-1) - a + b,
        "kl_qp": -(q * d).sum(-1) - b + a,
        "entropy_p": a - (p * z).sum(-1),
        "entropy_q": b - (q * y).sum(-1),
    }


def draw(seed, tokens=7, vocabulary=11, scale=3.0):
    rng = np.random.default_rng(seed)
    z, y = (jnp.asarray(rng.normal(0, scale, (tokens, vocabulary)), jnp.float32) for _ in range(2))
    return z, y, jnp.asarray(rng.integers(0, vocabulary, tokens), jnp.int32)


@pytest.mark.parametrize("vocabulary", [2, 11, 512])
def test_all_six_equal_the_float64_oracle(vocabulary):
    z, y, targets = draw(0, vocabulary=vocabulary)
    ours, theirs = pair_statistics(z, y, targets), oracle(z, y, targets)
    for name in FIELDS:
        np.testing.assert_allclose(getattr(ours, name), theirs[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_one_view_agrees_with_the_pair():
    z, y, targets = draw(1)
    one, pair = token_statistics(z, targets), pair_statistics(z, y, targets)
    np.testing.assert_array_equal(one.nll_p, pair.nll_p)
    np.testing.assert_array_equal(one.entropy_p, pair.entropy_p)


def test_half_precision_logits_are_reduced_in_single_precision():
    z, y, targets = draw(6)
    z, y = z.astype(jnp.bfloat16), y.astype(jnp.bfloat16)
    found = pair_statistics(z, y, targets)
    expected = pair_statistics(z.astype(jnp.float32), y.astype(jnp.float32), targets)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    np.testing.assert_array_equal(token_statistics(z, targets).nll_p, expected.nll_p)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 20.0))
def test_properties(seed, scale):
    z, y, targets = draw(seed, scale=scale)
    forward, swapped = pair_statistics(z, y, targets), pair_statistics(y, z, targets)
    np.testing.assert_allclose(forward.divergence, swapped.divergence, rtol=1e-6)
    np.testing.assert_array_equal(forward.kl_pq, swapped.kl_qp)
    assert (np.asarray(forward.kl_pq) >= -1e-5).all()
    assert (np.asarray(forward.kl_qp) >= -1e-5).all()
    assert (np.asarray(forward.entropy_p) >= -1e-6).all()
    assert (np.asarray(forward.entropy_p) <= np.log(z.shape[-1]) + 1e-5).all()
    assert (np.asarray(forward.nll_q) >= 0).all()


def test_equal_views_diverge_by_exactly_zero():
    z, _, targets = draw(2, vocabulary=512)
    np.testing.assert_array_equal(pair_statistics(z, z, targets).divergence, 0.0)


def test_shifted_logits_change_nothing():
    z, y, targets = draw(3)
    ours, shifted = pair_statistics(z, y, targets), pair_statistics(z + np.float32(7), y - np.float32(5), targets)
    for name in FIELDS:
        np.testing.assert_allclose(getattr(ours, name), getattr(shifted, name), rtol=1e-4, atol=1e-5)


def test_extreme_logits_are_finite_with_finite_gradients():
    z = jnp.array([[80.0, -80.0, 0.0], [-80.0, 80.0, 80.0]], jnp.float32)
    y = -z
    targets = jnp.array([1, 0], jnp.int32)

    def total(z, y):
        return sum(getattr(pair_statistics(z, y, targets), name).sum() for name in FIELDS)

    value, gradients = jax.value_and_grad(total, argnums=(0, 1))(z, y)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("name", FIELDS)
def test_gradients_equal_numeric_differences(name):
    z, y, targets = draw(4, tokens=3, vocabulary=5, scale=1.0)
    check_grads(
        lambda z, y: getattr(pair_statistics(jnp.asarray(z), jnp.asarray(y), targets), name),  # it gives NumPy's
        (jnp.asarray(z), jnp.asarray(y)),
        order=1,
        modes=["rev"],
        atol=1e-2,
        rtol=1e-2,
    )


def test_gradients_equal_the_closed_forms():
    z, y, targets = draw(5)
    p, q = jax.nn.softmax(z), jax.nn.softmax(y)
    d = z - y
    mean_p, mean_q = (p * d).sum(-1, keepdims=True), (q * d).sum(-1, keepdims=True)
    entropy = -(p * jnp.log(p)).sum(-1, keepdims=True)

    def gradient(name, argument):
        return jax.grad(lambda z, y: getattr(pair_statistics(z, y, targets), name).sum(), argument)(z, y)

    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    close(gradient("nll_p", 0), p - jax.nn.one_hot(targets, z.shape[-1]))
    close(gradient("entropy_p", 0), -p * (jnp.log(p) + entropy))
    close(gradient("kl_pq", 0), p * (d - mean_p))
    close(gradient("kl_pq", 1), q - p)
    close(gradient("divergence", 0), p * (d - mean_p) + p - q)
    close(gradient("divergence", 1), q * (mean_q - d) + q - p)
