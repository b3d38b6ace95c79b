"""The train step: pure, built once from the configuration, jitted once with explicit shardings by the loop."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Int

from jaxguard.batch import Batch
from jaxguard.config import ObjectiveConfig
from jaxguard.models import lora
from jaxguard.models.families import Parameters, merge
from jaxguard.objective import paper
from jaxguard.objective.schedules import cross_weight
from jaxguard.objective.statistics import TokenStatistics, pair_statistics, token_statistics
from jaxguard.train.state import TrainState

Metrics = dict[str, Array]
Step = Callable[[nnx.GraphDef, Parameters, TrainState, Batch], tuple[TrainState, Metrics]]


def answer_positions(answer_mask: Bool[Array | np.ndarray, "B T"], budget: int) -> Int[Array, "B K"]:
    """The first `budget` target positions of each row that are answers (positions that are none fill the rest)."""
    return jnp.argsort(~answer_mask[:, 1:], axis=1, stable=True)[:, :budget]


def forward(
    graph: nnx.GraphDef,
    frozen: Parameters,
    parameters: Parameters,
    batch: Batch,
    targets_at: Int[Array, "B K"],
    dropout: Array | None = None,
) -> TokenStatistics:
    """Statistics of the targets at those positions ([B, K]); both views run in one call, stacked along the batch.

    `dropout` is the key that the dropout of adapters is drawn from, independently for each view; None is without.
    """
    model = merge(graph, frozen, parameters)
    if dropout is not None:
        lora.drop(model, dropout)
    rows, views = batch.images.shape[:2]
    tokens, positions, segments, chosen = (
        jnp.repeat(leaf, views, axis=0) for leaf in (batch.tokens, batch.positions, batch.segments, targets_at)
    )
    hidden = model(tokens, positions, segments, batch.images.reshape(rows * views, *batch.images.shape[2:]))
    hidden = jnp.take_along_axis(hidden, chosen[..., None], axis=1)
    logits = model.language.logits(hidden).reshape(rows, views, chosen.shape[1], -1)
    targets = jnp.take_along_axis(batch.tokens[:, 1:], targets_at, axis=1)
    if views == 1:
        return token_statistics(logits[:, 0], targets)
    return pair_statistics(logits[:, 0], logits[:, 1], targets)


def make_step(
    objective: ObjectiveConfig,
    optimizer: optax.GradientTransformation,
    *,
    steps: int,
    answer_length: int,
    end_token: int,
    dropout_seed: int | None = None,
) -> Step:
    """The step for one objective and optimizer.

    Args:
        objective: weights and switches of the loss.
        optimizer: applied to the trainable parameters.
        steps: length of the run, for the schedule of lambda.
        answer_length: answer tokens per row at most.
        end_token: id of the token that ends an answer.
        dropout_seed: seed of the adapters' dropout; None is without.
    """
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

        def loss(parameters: Parameters) -> tuple[Array, Metrics]:
            statistics = forward(graph, frozen, parameters, batch, chosen, dropout)
            return paper.loss(paper.terms(statistics, where, objective), weight(state.step), objective)

        (_, metrics), gradients = jax.value_and_grad(loss, has_aux=True)(state.parameters)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes int32 counts with float32
            updates, moments = optimizer.update(gradients, state.optimizer, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        metrics |= {"gradient_norm": optax.tree.norm(gradients), "cross_weight": weight(state.step)}
        return TrainState(state.step + 1, parameters, moments), metrics

    return step
