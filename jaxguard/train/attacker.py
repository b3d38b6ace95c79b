"""The attacker's own train step, for judging purifiers: it knows which rows are poisoned, and uses other losses."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Int

from jaxguard.attacks.poison import PoisonedSource
from jaxguard.batch import Batch
from jaxguard.config import Config
from jaxguard.models.architecture import Parameters, merge
from jaxguard.objective.attackers import AnswerStates, trojvlm, vlood
from jaxguard.train import sharding
from jaxguard.train.forward import answer_positions
from jaxguard.train.setup import Setup
from jaxguard.train.state import TrainState
from jaxguard.train.step import Metrics


class AttackerStep:
    """As `setup.CompiledStep`, with the losses of `config.attack`: "trojvlm" or "vlood".

    Args:
        config: the run.
        setup: its model and optimizer.
        batch: gives the shapes.
        trainable: the weights that training starts from: VLOOD stays near what they said.
        source: knows which rows are poisoned. The step looks ids up; batches carry no labels.
    """

    def __init__(self, config: Config, setup: Setup, batch: Batch, trainable: Parameters, source: PoisonedSource):
        mesh, graph, optimizer = setup.model.mesh, setup.model.architecture.graph, setup.optimizer
        kind, budget = config.attack.name, config.data.answer_length
        planted = np.zeros(len(source), bool)
        planted[source.ids] = True

        def step(
            graph: nnx.GraphDef,
            frozen: Parameters,
            reference: Parameters,
            planted: Array,
            state: TrainState,
            batch: Batch,
        ) -> tuple[TrainState, Metrics]:
            chosen = answer_positions(batch.answer_mask, budget)

            def loss(parameters: Parameters) -> tuple[Array, Metrics]:
                states = answer_states(merge(graph, frozen, parameters), batch, chosen)
                if kind == "trojvlm":
                    return trojvlm(states)
                before = answer_states(merge(graph, frozen, reference), batch, chosen)
                return vlood(states, jax.lax.stop_gradient(before.log_p), planted[batch.ids])

            with sharding.rows_on(mesh):
                (_, metrics), gradients = jax.value_and_grad(loss, has_aux=True)(state.parameters)
            with jax.numpy_dtype_promotion("standard"):  # optax mixes int32 counts with float32
                updates, moments = optimizer.update(gradients, state.optimizer, state.parameters)
            parameters = optax.apply_updates(state.parameters, updates)
            metrics |= {"gradient_norm": optax.tree.norm(gradients)}
            return TrainState(state.step + 1, parameters, moments), metrics

        state = jax.tree.map(lambda leaf: leaf.sharding, setup.abstract)
        rows, everywhere = sharding.batch_sharding(mesh), sharding.replicated(mesh)
        placed = {path: setup.model.shardings[path] for path in trainable}
        frozen = {path: setup.model.shardings[path] for path in setup.frozen}
        self._inputs = (setup.frozen, trainable, jax.device_put(planted, everywhere))
        jitted = jax.jit(
            step,
            static_argnums=0,
            in_shardings=(frozen, placed, everywhere, state, rows),
            out_shardings=(state, everywhere),
            donate_argnums=4,
        )
        self._compiled = jitted.lower(graph, *self._inputs, setup.abstract, batch).compile()

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        return self._compiled(*self._inputs, state, batch)


def answer_states(model: Any, batch: Batch, chosen: Int[Array, "B K"]) -> AnswerStates:
    """What the attacker's losses read, at the first view's chosen target positions."""
    hidden = model(batch.tokens, batch.positions, batch.segments, batch.images[:, 0], right_padded=batch.right_padded)
    hidden = jnp.take_along_axis(hidden, chosen[..., None], axis=1)
    targets = jnp.take_along_axis(batch.tokens[:, 1:], chosen, axis=1)
    head = model.language.unembedding
    log_p = jax.nn.log_softmax(head.logits(hidden))
    nll = -jnp.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
    return AnswerStates(
        log_p, hidden, head.rows(targets), nll, jnp.take_along_axis(batch.answer_mask[:, 1:], chosen, axis=1)
    )
