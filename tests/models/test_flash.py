"""Accelerator kernels against reference attention: splash in interpreter mode, cuDNN's call computed by XLA."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from jaxguard.config import MeshConfig
from jaxguard.models import flash, placement
from jaxguard.models.attention import Causal, attention, causal_mask, pack, reference
from jaxguard.train.sharding import make_mesh, rows_on


def rows(length, heads, groups, *, batch=2, depth=64, dtype=np.float32) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(length)
    query, key, value = (rng.normal(size=(batch, length, n, depth)) for n in (heads, groups, groups))
    return jnp.asarray(query, dtype), jnp.asarray(key, dtype), jnp.asarray(value, dtype)


def segments(length, padding):
    return jnp.asarray(np.arange(length)[None] < length - np.array(padding)[:, None], jnp.int32)


def dense_mask(segments) -> Array:
    mask = causal_mask(segments)
    assert not isinstance(mask, Causal)
    return mask


def as_xla(query, key, value, *, causal):
    """What `flash.cudnn` asks for, from the same function's other implementation: cuDNN itself needs a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.nn, "dot_product_attention", partial(_other, jax.nn.dot_product_attention))
        return flash.cudnn(query, key, value, causal=causal)


def _other(function, *arrays, implementation, **options):
    assert implementation == "cudnn"
    return function(*arrays, implementation="xla", **options)


splash = partial(flash.splash, interpret=True)
KERNELS = pytest.mark.parametrize("kernel", [splash, as_xla], ids=["splash", "what cuDNN is asked, by XLA"])


@KERNELS
@pytest.mark.parametrize(("length", "heads", "groups"), [(128, 2, 2), (200, 4, 2)])
@pytest.mark.parametrize("causal", [True, False])
def test_values_and_gradients_are_those_of_plain_attention(kernel, length, heads, groups, causal):
    """Of text: what stands in the padding behind it is never read."""
    arrays = rows(length, heads, groups)
    padded = segments(length, (0, 37)) if causal else segments(length, (0, 0))
    mask = dense_mask(padded) if causal else None
    seen = (padded > 0)[:, :, None, None]
    weights = jnp.where(seen, rows(length, heads, groups)[0][::-1], 0.0)

    def total(attend, *arrays):
        values = jnp.where(seen, attend(*arrays), 0.0)
        return jnp.sum(values * weights), values

    ours = jax.value_and_grad(partial(total, partial(kernel, causal=causal)), (0, 1, 2), has_aux=True)(*arrays)
    expected = jax.value_and_grad(partial(total, partial(reference, mask=mask)), (0, 1, 2), has_aux=True)(*arrays)
    for mine, wanted in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize(("tensor", "heads", "groups"), [(2, 4, 2), (4, 4, 1), (1, 2, 2)])
def test_each_device_has_its_own_rows_and_heads(tensor, heads, groups):
    """Heads stay whole where those of keys do not divide."""
    arrays = rows(130, heads, groups, batch=8)
    mesh = make_mesh(MeshConfig(data=1, fsdp=8 // tensor, tensor=tensor))

    def attend(*arrays):
        with rows_on(mesh):
            return splash(*arrays, causal=True)

    found = jax.jit(attend)(*arrays)
    np.testing.assert_allclose(found, splash(*arrays, causal=True), atol=1e-6)
    shared = 1 if groups % tensor else tensor
    assert found.sharding.shard_shape(found.shape) == (tensor, 130, heads // shared, 64)


def test_what_takes_which_kernel():
    half, single = (rows(128, 2, 2, dtype=dtype) for dtype in (jnp.bfloat16, np.float32))
    few = rows(127, 2, 2, dtype=jnp.bfloat16)
    wide = rows(128, 2, 2, depth=136, dtype=jnp.bfloat16)

    def chosen(platform, query, key, value):
        return flash.choose(query, key, platform)

    assert chosen("cpu", *half) is None
    assert (chosen("gpu", *half), chosen("gpu", *few), chosen("gpu", *single)) == (flash.cudnn, flash.cudnn, None)
    assert chosen("gpu", *wide) is None
    assert (chosen("tpu", *half), chosen("tpu", *single), chosen("tpu", *few)) == (flash.splash, flash.splash, None)
    assert flash.choose(half[0], half[1][:, :64], "tpu") is None, "other tokens than its own"


@pytest.mark.parametrize("causal", [True, False])
def test_on_a_gpu_half_precision_goes_to_cudnn(causal, monkeypatch):
    asked = []

    def call(*arrays, **options):
        asked.append(options)
        return arrays[0]

    monkeypatch.setattr(jax.nn, "dot_product_attention", call)
    monkeypatch.setattr(placement, "platform", lambda: "gpu")
    arrays = rows(128, 2, 2, dtype=jnp.bfloat16)
    mask = causal_mask(segments(128, (0, 0)), right_padded=True) if causal else None
    assert attention(*arrays, mask) is arrays[0]
    assert asked == [{"is_causal": causal, "implementation": "cudnn"}]
    attention(*rows(128, 2, 2), mask)
    assert len(asked) == 1, "plainly, in single precision"


def test_a_kernel_takes_whole_and_causal_rows_and_no_others(monkeypatch):
    taken = []

    def kernel(query, key, value, *, causal):
        taken.append(causal)
        return reference(query, key, value, dense_mask(segments(query.shape[1], (0, 0))) if causal else None)

    monkeypatch.setattr(flash, "choose", lambda *_: kernel)
    arrays = rows(6, 2, 2)
    right_padded = causal_mask(segments(6, (0, 0)), right_padded=True)
    assert isinstance(right_padded, Causal)
    attention(*arrays, None)
    attention(*arrays, right_padded)
    assert taken == [False, True]
    attention(*arrays, causal_mask(segments(6, (0, 0))))
    assert taken == [False, True]
    query, key, value = (pack([x, x[:, :4]], 2) for x in arrays)
    masks = (segments(6, (0, 0)), segments(4, (0, 0)))
    found = attention(query, key, value, tuple(causal_mask(part, right_padded=True) for part in masks))
    assert taken == [False, True, True, True]
    np.testing.assert_allclose(found, attention(query, key, value, tuple(map(causal_mask, masks))), atol=1e-6)
