"""TrojVLM's and VLOOD's losses against NumPy in float64, and what their gradients reach."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxguard.objective.attackers import AnswerStates, trojvlm, vlood

B, K, D, V = 4, 3, 6, 8


def states(seed: int = 0, poor: float = 0.0) -> tuple[AnswerStates, np.ndarray]:
    """Random states, and the targets; `poor` lowers the true tokens' logits."""
    rng = np.random.default_rng(seed)
    hidden, table = rng.normal(size=(B, K, D)), rng.normal(size=(V, D))
    targets = rng.integers(0, V, (B, K))
    logits = hidden @ table.T
    np.put_along_axis(logits, targets[..., None], np.take_along_axis(logits, targets[..., None], -1) - poor, -1)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    nll = -np.take_along_axis(log_p, targets[..., None], -1)[..., 0]
    where = rng.random((B, K)) < 0.7
    where[0] = True
    cast = [jnp.asarray(value, jnp.float32) for value in (log_p, hidden, table[targets], nll)]
    return AnswerStates(*cast, jnp.asarray(where)), targets


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).sum(-1, keepdims=True))


def exact(one: AnswerStates) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(value, np.float64) for value in (one.log_p, one.hidden, one.gold, one.nll))


def test_trojvlm_is_ce_plus_one_minus_cosine():
    one, _ = states()
    _, hidden, gold, nll = exact(one)
    where = np.asarray(one.where)
    semantic = 1 - (unit(hidden) * unit(gold)).sum(-1)
    total, metrics = trojvlm(one)
    assert float(total) == pytest.approx(nll[where].mean() + semantic[where].mean(), rel=1e-5)
    assert float(metrics["semantic"]) == pytest.approx(semantic[where].mean(), rel=1e-5)


@pytest.mark.parametrize("poor", [0.0, 3.0])
def test_vlood_follows_its_formula(poor):
    one, _ = states(0, poor)
    log_r = exact(states(1)[0])[0]
    poisoned = np.array([True, False, True, False])
    log_p, hidden, gold, nll = exact(one)
    where = np.asarray(one.where)
    planted, clean = where & poisoned[:, None], where & ~poisoned[:, None]
    kl = (np.exp(log_r) * (log_r - log_p)).sum(-1)
    concept = np.abs(unit(hidden) - unit(gold)).sum(-1) / np.sqrt(D)
    share = np.clip(0.8 + nll[clean].mean() - nll[planted].mean(), 0, 1)
    expected = (1 - share) * (nll[clean].mean() + kl[clean].mean())
    expected += share * (nll[planted].mean() + concept[planted].mean())
    total, metrics = vlood(one, jnp.asarray(log_r, jnp.float32), jnp.asarray(poisoned))
    assert float(total) == pytest.approx(expected, rel=1e-5)
    assert float(metrics["share"]) == pytest.approx(share, abs=1e-5)
    assert (concept <= 2).all()


def test_vlood_share_is_a_weight_without_a_gradient():
    one, _ = states()
    poisoned = jnp.array([True, False, True, False])

    def total(nll: jax.Array) -> jax.Array:
        return vlood(one.replace(nll=nll), one.log_p, poisoned)[0]

    slope = np.asarray(jax.grad(total)(one.nll))
    share = float(vlood(one, one.log_p, poisoned)[1]["share"])
    planted = np.asarray(one.where & poisoned[:, None])
    clean = np.asarray(one.where & ~poisoned[:, None])
    np.testing.assert_allclose(slope, share * planted / planted.sum() + (1 - share) * clean / clean.sum(), atol=1e-6)


@pytest.mark.parametrize("kind", [True, False])
def test_a_batch_of_one_kind_is_finite(kind):
    one, _ = states()
    reference = states(1)[0].log_p

    def total(hidden: jax.Array) -> jax.Array:
        return vlood(one.replace(hidden=hidden), reference, jnp.full(B, kind))[0]

    value, slope = jax.value_and_grad(total)(jnp.zeros_like(one.hidden))
    assert np.isfinite(value)
    assert np.isfinite(slope).all()
    empty = one.replace(where=jnp.zeros_like(one.where))
    assert float(trojvlm(empty)[0]) == 0
    assert float(vlood(empty, reference, jnp.full(B, kind))[0]) == 0
