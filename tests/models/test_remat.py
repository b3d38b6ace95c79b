"""Rematerialisation changes the number of operations but no result."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxguard.bench.traced import matrix_flops
from jaxguard.config import Remat
from jaxguard.models.attention import causal_mask
from jaxguard.models.layers import grouped, scan, stack
from jaxguard.models.llama import LlamaConfig, LlamaLayer

CONFIG = LlamaConfig(hidden_size=16, intermediate_size=24, num_attention_heads=4, num_key_value_heads=2)


def test_same_loss_and_gradients_for_more_operations():
    """Of decoder layers scanned in two levels, as IDEFICS scans its own."""
    graph, parameters = nnx.split(grouped(stack(4, lambda rngs: LlamaLayer(CONFIG, rngs), nnx.Rngs(0)), 2))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 16)).astype(np.float32))
    positions = jnp.broadcast_to(jnp.arange(6), (2, 6))
    rotation, mask = CONFIG.rope.rotation(positions, CONFIG.depth), causal_mask(jnp.ones((2, 6), jnp.int32))
    flops, results = {}, {}
    for remat in get_args(Remat):

        def plain(layer, x, _):
            return layer(x, rotation, mask, None, 0)[0], None

        def group(layers, x, _, remat=remat):
            return scan(layers, x, call=plain, count=2, remat=remat)

        def loss(parameters, group=group, remat=remat):
            return jnp.square(scan(nnx.merge(graph, parameters), x, call=group, count=2, remat=remat)[0]).mean()

        traced = jax.jit(jax.value_and_grad(loss)).trace(parameters)
        flops[remat] = matrix_flops(traced.jaxpr.jaxpr)
        results[remat] = traced.lower().compile()(parameters)
    assert flops["none"] < flops["dots"] < flops["full"]
    value, gradients = results["none"]
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))
    for other, others in (results["dots"], results["full"]):
        np.testing.assert_allclose(other, value, rtol=1e-6)
        jax.tree.map(assert_rounded_alike, others, gradients)


def assert_rounded_alike(ours, theirs):
    """Sums in another order differ by roundings of their largest terms, also where they come out small."""
    rounding = 16 * np.finfo(np.float32).eps * np.abs(theirs).max()
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=rounding)
