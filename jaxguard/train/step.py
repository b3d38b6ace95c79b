"""The train step: pure, built once from the configuration, jitted once with explicit shardings by the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Int

from jaxguard.batch import Batch
from jaxguard.config import ObjectiveConfig
from jaxguard.models.architecture import Parameters, merge
from jaxguard.objective import paper
from jaxguard.objective.schedules import cross_weight
from jaxguard.train import sharding
from jaxguard.train.forward import HeadKind, Viewed, answer_positions, token_statistics
from jaxguard.train.state import TrainState

Metrics = dict[str, Array]
Part = tuple[Batch, Int[Array, "B K"], paper.Masks]
"""Rows, the target positions that are looked at, and which of these count."""
Step = Callable[[nnx.GraphDef, Parameters, TrainState, Batch], tuple[TrainState, Metrics]]


def make_step(
    objective: ObjectiveConfig,
    optimizer: optax.GradientTransformation,
    *,
    steps: int,
    answer_length: int,
    end_token: int,
    mesh: Mesh,
    places: Mapping[str, NamedSharding],
    share: Fraction = Fraction(1),
    accumulate: int = 1,
    head: HeadKind = "auto",
    dropout_seed: int | None = None,
) -> Step:
    """The step for one objective and optimizer.

    Args:
        objective: weights and switches of the loss.
        optimizer: applied to the trainable parameters.
        steps: length of the run, for the schedule of lambda.
        answer_length: answer tokens per row at most.
        end_token: id of the token that ends an answer.
        mesh: where it will run.
        places: of the parameters on it.
        share: of the rows that get a second view.
        accumulate: micro-batches, run one behind the other. Their sums are divided by the counts of the whole batch,
            so loss and gradient are those of the whole batch.
        head: how the answers' statistics are taken; "auto" follows the rule of `objective.fused`.
        dropout_seed: seed of the adapters' dropout; None is without.
    """
    viewed = Viewed.of(share)
    weight = cross_weight(objective, steps)

    def step(graph: nnx.GraphDef, frozen: Parameters, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        chosen = answer_positions(batch.answer_mask, answer_length)
        where = paper.masks(
            *(
                jnp.take_along_axis(leaf[:, 1:], chosen, axis=1)
                for leaf in (batch.answer_mask, batch.tokens, batch.segments)
            ),
            positions=objective.positions,
            end_token=end_token,
        )

        dropout = None if dropout_seed is None else jax.random.fold_in(jax.random.key(dropout_seed), state.step)

        def gradient(part: Part, dropout: Array | None, **counts: Array) -> tuple[Parameters, Metrics]:
            batch, chosen, where = part

            def loss(parameters: Parameters) -> tuple[Array, Metrics]:
                model = merge(graph, frozen, parameters)
                parts = token_statistics(model, batch, chosen, viewed, mesh, head, dropout)
                terms = [paper.terms(statistics, rows(where), objective) for statistics, rows in parts]
                total = jax.tree.map(lambda *of: sum(of), *terms).replace(**counts)
                return paper.loss(total, weight(state.step), objective)

            return jax.grad(loss, has_aux=True)(state.parameters)

        if accumulate == 1:
            gradients, metrics = gradient((batch, chosen, where), dropout)
        else:
            counts = paper.counts(where, viewed.rows(where) if objective.views == 2 else None)

            def add(total: Parameters, inputs: tuple[Part, Array]) -> tuple[Parameters, Metrics]:
                part, number = inputs
                key = None if dropout is None else jax.random.fold_in(dropout, number)
                gradients, metrics = gradient(part, key, **counts)
                return jax.tree.map(jnp.add, total, gradients), metrics

            parts = sharding.micro_batches((batch, chosen, where), accumulate, mesh)
            nothing = sharding.zeros_like(state.parameters, places)
            gradients, metrics = jax.lax.scan(add, nothing, (parts, jnp.arange(accumulate)))
            metrics = jax.tree.map(jnp.sum, metrics)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes int32 counts with float32
            updates, moments = optimizer.update(gradients, state.optimizer, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        metrics |= {"gradient_norm": optax.tree.norm(gradients), "cross_weight": weight(state.step)}
        return TrainState(state.step + 1, parameters, moments), metrics

    return step
