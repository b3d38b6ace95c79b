"""Streamed statistics against float64 autodiff of the definitions, on one device and on a mesh; their memory."""

import functools
from unittest.mock import Mock

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from jaxguard.config import MeshConfig
from jaxguard.models.head import Head
from jaxguard.objective import fused
from jaxguard.objective.statistics import pair_statistics, token_statistics
from jaxguard.train.sharding import head_split, make_mesh

FIELDS = ("nll_p", "nll_q", "kl_pq", "kl_qp", "entropy_p", "entropy_q")
VOCABULARIES = {11: 40, 512: 40, 32064: 8, 151936: 8}
"""And the tokens they are tested with."""
WIDTH = 6


def draw(vocabulary, tokens, *, tied=False, bias=False, dtype=np.float32, scale=1.0):
    """Hidden states, head weights, bias, targets and a cotangent for each statistic."""
    rng = np.random.default_rng(vocabulary)
    hidden = [jnp.asarray(rng.normal(0, scale, (tokens // 4, 4, WIDTH)), dtype) for _ in range(2)]
    weight = rng.normal(0, 1.0, (vocabulary, WIDTH) if tied else (WIDTH, vocabulary)).astype(np.float32)
    offset = rng.normal(0, 1.0, vocabulary).astype(np.float32) if bias else None
    targets = jnp.asarray(rng.integers(0, vocabulary, (tokens // 4, 4)), jnp.int32)
    return hidden, weight, offset, targets, rng.normal(size=(6, tokens // 4, 4)).astype(np.float32)


def definitions(hidden, head, targets):
    """The six statistics [6, ...] as METHOD defines them, in the type of what is given."""
    weight = head.weight if head.vocabulary_axis else head.weight.T
    logits = [head.scale * (h @ weight + (0 if head.bias is None else head.bias)) for h in hidden]
    if head.cap is not None:
        logits = [head.cap * jnp.tanh(z / head.cap) for z in logits]
    log_p, log_q = (z - jax.nn.logsumexp(z, axis=-1, keepdims=True) for z in logits)
    p, q = jnp.exp(log_p), jnp.exp(log_q)
    pick = [jnp.take_along_axis(x, targets[..., None], -1)[..., 0] for x in (log_p, log_q)]
    sums = [(p * (log_p - log_q)).sum(-1), (q * (log_q - log_p)).sum(-1), -(p * log_p).sum(-1), -(q * log_q).sum(-1)]
    return jnp.stack([-pick[0], -pick[1], *sums])


def oracle(hidden, head, targets, cotangents):
    """(values, gradients of the hidden states, of the head's arrays) in float64."""

    @jax.jit
    def run(hidden, head, cotangents):
        values, pull = jax.vjp(lambda h, w: definitions(h, w, targets), hidden, head)
        return values, *pull(cotangents)

    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (hidden, head, cotangents))
        return jax.tree.map(np.asarray, run(*wide))


def ours(hidden, head, targets, cotangents, split=None):
    def stacked(hidden, head):
        hidden_p, hidden_q = hidden
        statistics = fused.pair_statistics(hidden_p, hidden_q, head, targets, split)
        return jnp.stack([getattr(statistics, name) for name in FIELDS])

    @jax.jit
    def run(hidden, head):
        values, pull = jax.vjp(stacked, hidden, head)
        return (values, *pull(cotangents))

    return jax.tree.map(np.asarray, run(hidden, head))


def assert_close(ours, theirs, tolerance):
    """Largest error relative to the largest value, array by array."""
    for mine, true in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert np.isfinite(mine.astype(np.float64)).all()
        assert np.abs(mine.astype(np.float64) - true).max() <= tolerance * np.abs(true).max()


@pytest.fixture(params=[1, 4], ids="{} tensor shards".format)
def shards(request):
    return request.param


def split_of(head, shards):
    return head_split(make_mesh(MeshConfig(data=2, fsdp=4 // shards, tensor=shards)), head) if shards > 1 else None


@pytest.fixture
def small_chunks(monkeypatch):
    """Several chunks of which the last is not full."""
    monkeypatch.setattr(fused, "CHUNK_TOKENS", 3)
    monkeypatch.setattr(fused, "CHUNK_BYTES", 0)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_values_and_gradients_equal_float64(vocabulary, dtype, shards, small_chunks):
    hidden, weight, _, targets, cotangents = draw(vocabulary, VOCABULARIES[vocabulary], dtype=dtype, tied=True)
    head = Head(jnp.asarray(weight, dtype), vocabulary_axis=0)
    mine = ours(hidden, head, targets, cotangents, split_of(head, shards))
    values, *gradients = oracle(hidden, head, targets, cotangents)
    tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
    for name, found, true in zip(FIELDS, mine[0], values, strict=True):
        assert np.abs(found - true).max() <= tolerance * np.abs(true).max(), name
    assert_close(mine[1:], gradients, tolerance)


VARIANTS: dict[str, tuple[dict, bool]] = {
    "kernel": ({}, False),
    "bias": ({}, True),
    "cap": ({"cap": 2.0}, False),
    "scale, cap and bias": ({"scale": 3.0, "cap": 5.0}, True),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_heads_of_every_kind(variant, shards, small_chunks):
    options, bias = VARIANTS[variant]
    hidden, weight, offset, targets, cotangents = draw(512, 24, bias=bias)
    head = Head(jnp.asarray(weight), None if offset is None else jnp.asarray(offset), **options)
    mine = ours(hidden, head, targets, cotangents, split_of(head, shards))
    assert_close(mine, oracle(hidden, head, targets, cotangents), 1e-5)


def test_the_vocabulary_is_split_where_it_divides():
    heads = {vocabulary: Head(jnp.zeros((WIDTH, vocabulary))) for vocabulary in (11, 512)}
    assert {size: split_of(head, 4).vocabulary_axis for size, head in heads.items()} == {11: None, 512: "tensor"}


def test_one_view_agrees_with_the_reference_version(shards, small_chunks):
    hidden, weight, _, targets, cotangents = draw(512, 24)
    head = Head(jnp.asarray(weight))

    def run(statistics):
        def total(hidden, head):
            found = statistics(hidden, head)
            return jnp.sum(found.nll_p * cotangents[0] + found.entropy_p * cotangents[1])

        return jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(hidden[0], head)

    split = split_of(head, shards)
    mine = run(lambda hidden, head: fused.token_statistics(hidden, head, targets, split))
    plain = run(lambda hidden, head: token_statistics(head.logits(hidden), targets))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), mine, plain)


def test_equal_views_diverge_by_exactly_zero(shards):
    hidden, weight, _, targets, _ = draw(512, 24)
    head = Head(jnp.asarray(weight))
    statistics = fused.pair_statistics(hidden[0], hidden[0], head, targets, split_of(head, shards))
    np.testing.assert_array_equal(statistics.divergence, 0.0)


def test_extreme_logits_are_finite_with_right_gradients(shards):
    """Logits of +-80: the views agree on nothing, and most probabilities underflow."""
    signs = np.sign(np.random.default_rng(0).normal(size=(8, 1, 16))).astype(np.float32)
    hidden = [jnp.asarray(80 * signs), jnp.asarray(-80 * signs)]
    head = Head(jnp.eye(16, dtype=jnp.float32))
    targets, cotangents = jnp.arange(8, dtype=jnp.int32)[:, None], np.ones((6, 8, 1), np.float32)
    mine = ours(hidden, head, targets, cotangents, split_of(head, shards))
    assert_close(mine, oracle(hidden, head, targets, cotangents), 1e-5)


def shapes(vocabulary, *, width=64, pairs=2048):
    hidden = [jax.ShapeDtypeStruct((pairs, width), jnp.float32)] * 2
    return hidden, jax.ShapeDtypeStruct((vocabulary, width), jnp.float32), jax.ShapeDtypeStruct((pairs,), jnp.int32)


def plain(hidden_p, hidden_q, head, targets):
    return pair_statistics(head.logits(hidden_p), head.logits(hidden_q), targets)


def gradient(statistics, argnums):
    def total(hidden, weight, targets):
        found = statistics(*hidden, Head(weight, vocabulary_axis=0), targets)
        return sum(jnp.square(getattr(found, name)).sum() for name in FIELDS)

    return jax.value_and_grad(total, argnums)


@pytest.mark.parametrize(("vocabulary", "share"), [(32064, 0.25), (151936, 0.1)])
@pytest.mark.parametrize("argnums", [0, (0, 1)], ids=["frozen head", "trained head"])
def test_temporary_memory_is_a_fraction_of_the_reference_version(vocabulary, share, argnums):
    def temporary(statistics):
        compiled = jax.jit(gradient(statistics, argnums)).lower(*shapes(vocabulary)).compile()
        memory = compiled.memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes

    assert temporary(fused.pair_statistics) <= share * temporary(plain)


def test_a_frozen_head_has_no_gradient_buffer():
    def outputs(jaxpr):
        for equation in jaxpr.eqns:
            yield from (tuple(variable.aval.shape) for variable in equation.outvars)
            for inner in jax.extend.core.jaxprs_in_params(equation.params):
                yield from outputs(inner)

    def found(argnums):
        return set(outputs(jax.make_jaxpr(gradient(fused.pair_statistics, argnums))(*shapes(512, width=48)).jaxpr))

    assert (512, 48) in found((0, 1))
    assert (512, 48) not in found(0)


def test_the_reference_version_is_chosen_where_memory_allows(monkeypatch):
    chip = [Mock(spec=jax.Device, platform="tpu")]
    assert fused.reference_fits(2048, 2, 1024, chip)
    assert not fused.reference_fits(2048, 2, 32064, chip)
    assert fused.reference_fits(2048, 2, 32064, chip * 4)
    host = jax.devices()
    monkeypatch.setattr("os.sysconf", {"SC_PHYS_PAGES": 2**22, "SC_PAGE_SIZE": 2**10}.__getitem__)
    assert fused.reference_fits(2048, 2, 32064 // 2, host)
    assert not fused.reference_fits(2048, 2, 32064, host)
