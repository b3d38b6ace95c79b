"""Traced programs: their operations, against the count from shapes, and the memory of their residuals."""

import dataclasses
from typing import get_args

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from jaxguard.bench.flops import step_flops
from jaxguard.bench.rehearsal import trace
from jaxguard.bench.traced import kept_bytes, matrix_flops
from jaxguard.config import MeshConfig, Remat
from jaxguard.models import flash, folders
from jaxguard.models.flops import View
from jaxguard.models.layers import Linear, scan, stack
from jaxguard.train.setup import describe_model, prepare


@pytest.mark.parametrize("trainable", ["projector", "language", "all"])
def test_operations_are_those_counted_from_shapes(small_config, trainable):
    """To 2%: the count from shapes leaves out what flows through the projector to its own first layer."""
    config = dataclasses.replace(
        small_config, model=dataclasses.replace(small_config.model, trainable=trainable), mesh=MeshConfig(data=8)
    )
    model = describe_model(config.model, config.mesh, folders.describe(config.model.path))
    setup, _ = prepare(model, config.model.trainable, config.train)
    view = View(config.train.batch_size, config.data.length, 16, config.data.answer_length)
    found = matrix_flops(trace(config, setup, "reference").jaxpr)
    assert found == pytest.approx(step_flops(model.architecture, trainable, [view, view]), rel=0.02)
    again = dataclasses.replace(config, model=dataclasses.replace(config.model, remat="full"))
    model = describe_model(again.model, again.mesh, folders.describe(config.model.path))
    assert (
        matrix_flops(trace(again, prepare(model, again.model.trainable, again.train)[0], "reference").jaxpr)
        > 1.1 * found
    )


def test_loops_count_as_often_as_they_run():
    def run(x, weights):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, weights)[0]

    jaxpr = jax.make_jaxpr(run)(jnp.zeros((3, 4)), jnp.zeros((5, 4, 4)))
    assert matrix_flops(jaxpr.jaxpr) == 5 * 2 * 3 * 4 * 4


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [128, 200, 1536])
def test_kernels_count_for_every_block(length, causal):
    """Splash computes scores and values forwards; for gradients, scores twice more and seven products in all."""
    x, padded = jax.ShapeDtypeStruct((2, length, 4, 64), jnp.float32), -(-length // 128) * 128

    def total(query, key, value):
        return jnp.sum(flash.splash(query, key, value, causal=causal))

    product = 2 * 2 * 4 * padded**2 * 64
    assert matrix_flops(jax.make_jaxpr(total)(x, x, x).jaxpr) == 2 * product
    gradient = jax.make_jaxpr(jax.grad(total, (0, 1, 2)))(x, x, x)
    assert matrix_flops(gradient.jaxpr) == pytest.approx(9 * product, rel=0.01)


def test_of_branches_the_dearest_counts():
    def run(x, which):
        return jax.lax.cond(which, lambda x: x @ x, lambda x: x @ x @ x, x)

    jaxpr = jax.make_jaxpr(run)(jnp.zeros((4, 4)), True)
    assert matrix_flops(jaxpr.jaxpr) == 2 * 2 * 4**3


def test_what_loops_keep_for_the_backward_pass():
    """Inputs of layers always; results of products with weights; what products of activations and sines need."""
    layers, x = stack(5, lambda rngs: Linear(4, 4, bias=False, rngs=rngs), nnx.Rngs(0)), jnp.zeros((2, 3, 4))
    graph, weights = nnx.split(layers)

    def call(layer, x, _):
        y = layer(x)
        return jnp.sin(jnp.einsum("btd,bsd->bts", y, y) @ y), None

    def kept(remat):
        def loss(weights):
            return scan(nnx.merge(graph, weights), x, call=call, count=5, remat=remat)[0].sum()

        return kept_bytes(jax.make_jaxpr(jax.grad(loss))(weights).jaxpr)

    rows, pairs = 5 * 2 * 3 * 4 * 4, 5 * 2 * 3 * 3 * 4
    assert {remat: kept(remat) for remat in get_args(Remat)} == {
        "none": 3 * rows + pairs,
        "dots": 2 * rows,
        "full": rows,
    }
