"""The paper's loss: every term against hand-computed values, masks, empty masks, schedules, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxguard.config import ObjectiveConfig
from jaxguard.objective.base import Context, Targets
from jaxguard.objective.paper import Paper, regularised
from jaxguard.objective.schedules import cross_view_weight
from jaxguard.objective.statistics import pair_statistics, token_statistics

FULL = ObjectiveConfig(
    alpha=0.7, cross_view_weight=0.9, margin=2.0, entropy_weight=0.4, entropy_max=1.2, entropy_min=0.8
)


def draw(seed=0, rows=3, tokens=5, vocabulary=7):
    rng = np.random.default_rng(seed)
    z, y = (jnp.asarray(rng.normal(0, 1.5, (rows, tokens, vocabulary)), jnp.float32) for _ in range(2))
    targets = jnp.asarray(rng.integers(0, vocabulary, (rows, tokens)), jnp.int32)
    return z, y, targets, rng.random((rows, tokens)) < 0.6


def everywhere(tokens, mask):
    return Targets(tokens=jnp.asarray(tokens), segments=jnp.ones_like(tokens), answer=jnp.asarray(mask))


def terms(statistics, tokens, mask, config=FULL):
    objective = Paper(config, steps=10, end_token=-1)
    return objective.terms(statistics=statistics, targets=everywhere(tokens, mask), context=Context())


def loss(found, config=FULL):
    return Paper(config, steps=10, end_token=-1).loss(terms=found, step=jnp.int32(0))


def total(z, y, tokens, mask, config):
    return loss(terms(pair_statistics(z, y, tokens), tokens, mask, config), config)[0]


@pytest.mark.parametrize("direction", ["repel", "attract"])
def test_loss_equals_the_formula_in_float64(direction):
    z, y, targets, mask = draw()
    objective = ObjectiveConfig(
        alpha=0.7,
        cross_view_weight=0.9,
        margin=2.0,
        entropy_weight=0.4,
        entropy_max=1.2,
        entropy_min=0.8,
        direction=direction,
    )
    log_p, log_q = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (np.float64(z), np.float64(y)))
    p, q = np.exp(log_p), np.exp(log_q)
    nll_p, nll_q = (-np.take_along_axis(x, targets[..., None], -1)[..., 0][mask].mean() for x in (log_p, log_q))
    divergence = ((p - q) * (log_p - log_q)).sum(-1)
    entropy = -(p * log_p).sum(-1)
    cross = np.maximum(0, 2.0 - divergence) if direction == "repel" else divergence
    band = np.maximum(0, entropy - 1.2) + np.maximum(0, 0.8 - entropy)
    expected = nll_p + 0.7 * nll_q + 0.9 * cross[mask].mean() + 0.4 * band[mask].mean()
    np.testing.assert_allclose(total(z, y, targets, mask, objective), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "objective",
    [
        FULL,
        ObjectiveConfig(alpha=1.0, cross_view_weight=1.0, direction="attract"),
        ObjectiveConfig(alpha=0.5, cross_view_weight=2.0, margin=0.3),
        ObjectiveConfig(alpha=1.0, entropy_weight=1.0, entropy_max=0.5),
    ],
)
def test_gradient_equals_numeric_differences(objective):
    z, y, targets, mask = draw(rows=2, tokens=3, vocabulary=5)
    mask[:] = True
    check_grads(
        lambda z, y: total(jnp.asarray(z), jnp.asarray(y), targets, mask, objective),  # it gives NumPy's
        (jnp.asarray(z), jnp.asarray(y)),
        order=1,
        modes=["rev"],
        atol=1e-2,
        rtol=1e-2,
    )


def test_repel_gives_no_gradient_beyond_the_margin_and_pushes_apart_below():
    z, y, targets, mask = draw()
    free = ObjectiveConfig(cross_view_weight=1.0, margin=0.0)
    held = ObjectiveConfig(cross_view_weight=1.0, margin=50.0)
    pull = jax.grad(lambda y: total(z, y, targets, mask, free))(y)
    np.testing.assert_array_equal(pull, 0.0)
    y2 = y - 0.05 * jax.grad(lambda y: total(z, y, targets, mask, held))(y)
    before, after = (pair_statistics(z, x, targets).divergence[mask].mean() for x in (y, y2))
    assert after > before


def test_masked_tokens_equal_absent_tokens():
    z, y, targets, _ = draw(rows=2, tokens=6)
    mask = np.array([[True] * 4 + [False] * 2] * 2)
    whole = total(z, y, targets, mask, FULL)
    cut = total(z[:, :4], y[:, :4], targets[:, :4], mask[:, :4], FULL)
    np.testing.assert_allclose(whole, cut, rtol=1e-6)
    garbage = z.at[:, 4:].set(1e4)
    np.testing.assert_allclose(total(garbage, y, targets, mask, FULL), cut, rtol=1e-6)


def test_empty_mask_is_finite_and_zero_with_zero_gradient():
    z, y, targets, mask = draw()
    value, gradient = jax.value_and_grad(lambda z: total(z, y, targets, np.zeros_like(mask), FULL))(z)
    assert value == 0.0
    np.testing.assert_array_equal(gradient, 0.0)


def test_equal_views_without_cross_or_entropy_are_cross_entropy():
    z, _, targets, mask = draw()
    objective = ObjectiveConfig(alpha=1.0, cross_view_weight=3.0, direction="attract")
    both = total(z, z, targets, mask, objective)
    plain = ObjectiveConfig()
    one, _ = loss(terms(token_statistics(z, targets), targets, mask, plain), plain)
    np.testing.assert_allclose(both, 2 * one, rtol=1e-6)


def test_permuting_rows_leaves_the_loss():
    z, y, targets, mask = draw(rows=6)
    order = np.random.default_rng(1).permutation(6)
    a = total(z, y, targets, mask, FULL)
    b = total(z[order], y[order], targets[order], mask[order], FULL)
    np.testing.assert_allclose(a, b, rtol=1e-6)


def summed(*parts):
    return {name: sum((part[name] for part in parts[1:]), parts[0][name]) for name in parts[0]}


def test_sums_over_micro_batches_give_the_whole_loss():
    z, y, targets, mask = draw(rows=6)
    parts = [terms(pair_statistics(z[s], y[s], targets[s]), targets[s], mask[s]) for s in (slice(0, 1), slice(1, 6))]
    np.testing.assert_allclose(loss(summed(*parts))[0], total(z, y, targets, mask, FULL), rtol=1e-6)


def test_rows_without_a_second_view_count_for_the_first_alone():
    z, y, targets, mask = draw(rows=6)
    viewed = terms(pair_statistics(z[:2], y[:2], targets[:2]), targets[:2], mask[:2])
    others = terms(token_statistics(z[2:], targets[2:]), targets[2:], mask[2:])
    _, metrics = loss(summed(viewed, others))
    every = pair_statistics(z, y, targets)
    for name, values, where in [
        ("ce", every.nll_p, mask),
        ("entropy", every.entropy_p, mask),
        ("ce_view", every.nll_q[:2], mask[:2]),
        ("divergence", every.divergence[:2], mask[:2]),
    ]:
        np.testing.assert_allclose(metrics[name], values[where].mean(), rtol=1e-6, err_msg=name)


def test_positions():
    answer = jnp.array([[False, True, True, True, False, True, True]])
    targets = jnp.array([[9, 5, 6, 2, 9, 7, 2]], jnp.int32)
    segments = jnp.array([[1, 2, 2, 2, 3, 3, 3]], jnp.int32)

    def chosen(positions, segments=segments, answer=answer):
        found = regularised(Targets(targets, segments, answer), positions, end_token=2)
        return np.flatnonzero(found[0]).tolist()

    assert chosen("answer") == [1, 2, 3, 5, 6]
    assert chosen("content") == [1, 2, 5]
    assert chosen("first") == [1, 5]
    adjacent = jnp.array([[False, True, True, True, True, True, True]])
    assert chosen("first", jnp.array([[1, 2, 2, 2, 3, 3, 3]], jnp.int32), adjacent) == [1, 4]


def test_lambda_schedule():
    weight = cross_view_weight(
        ObjectiveConfig(cross_view_weight=2.0, cross_view_warmup=4, cross_view_schedule="linear"), steps=12
    )
    values = [float(weight(jnp.int32(step))) for step in range(13)]
    np.testing.assert_allclose(values[:4], [0.5, 1.0, 1.5, 2.0])
    assert values[4] == 2.0
    assert values[8] == pytest.approx(1.0)
    assert values[12] == 0.0
    constant = cross_view_weight(ObjectiveConfig(cross_view_weight=2.0), steps=10)
    assert {float(constant(jnp.int32(step))) for step in (0, 5, 10)} == {2.0}
    cosine = cross_view_weight(ObjectiveConfig(cross_view_weight=2.0, cross_view_schedule="cosine"), steps=10)
    assert float(cosine(jnp.int32(5))) == pytest.approx(1.0)
