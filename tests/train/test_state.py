"""The optimizer: learning rate over a run, weight decay and gradient clipping."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxguard.config import TrainConfig
from jaxguard.train.state import make_optimizer


def update(config, gradients, parameters, state=None):
    """One update, and the state behind it."""
    optimizer = make_optimizer(config)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes int32 counts with float32
        return optimizer.update(gradients, optimizer.init(parameters) if state is None else state, parameters)


def test_the_learning_rate_rises_linearly_and_falls_as_a_cosine():
    """Of a gradient that stays the same, Adam's update is the learning rate."""
    config = TrainConfig(steps=100, warmup=10, learning_rate=0.5, final_lr_ratio=0.1)
    parameters, state, rates = {"layer.kernel": jnp.zeros(())}, None, []
    for _ in range(101):
        step, state = update(config, {"layer.kernel": jnp.ones(())}, parameters, state)
        rates.append(-float(step["layer.kernel"]))
    assert [rates[n] for n in (0, 5, 10, 55, 100)] == pytest.approx([0, 0.25, 0.5, 0.275, 0.05], abs=1e-4)


def test_matrices_decay_and_norms_biases_and_positions_do_not():
    decaying = ("layer.kernel", "embedding.table", "layer.lora.a", "layer.lora.b")
    staying = ("layer.bias", "norm.scale", "vision.position", "attention_gate")
    parameters = {path: jnp.ones(2) for path in (*decaying, *staying)}
    config = TrainConfig(steps=10, warmup=0, learning_rate=0.5, weight_decay=0.2)
    step, _ = update(config, jax.tree.map(jnp.zeros_like, parameters), parameters)
    assert {path: float(value[0]) for path, value in step.items()} == pytest.approx(
        dict.fromkeys(decaying, -0.1) | dict.fromkeys(staying, 0.0)
    )


def test_gradients_are_clipped_by_their_norm_over_all_parameters():
    gradients = {"a.kernel": jnp.array([3.0]), "b.bias": jnp.array([4.0])}
    _, state = update(TrainConfig(max_grad_norm=1.0), gradients, jax.tree.map(jnp.zeros_like, gradients))
    (moments,) = (one for one in jax.tree.leaves(state, is_leaf=is_adam) if is_adam(one))
    np.testing.assert_allclose([*moments.mu["a.kernel"], *moments.mu["b.bias"]], [0.06, 0.08], rtol=1e-5)


def is_adam(value):
    return isinstance(value, optax.ScaleByAdamState)
