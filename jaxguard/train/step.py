"""The one train step: pure, built once from a plan, jitted once with explicit shardings by `train.setup`."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Bool, Float, Int

from jaxguard.batch import Batch
from jaxguard.config import Config
from jaxguard.models.architecture import Leaf, Parameters, merge
from jaxguard.objective.base import Context, Metrics, Objective, Sum, Targets, Terms
from jaxguard.objective.registry import build_objective
from jaxguard.objective.statistics import PairStatistics, TokenStatistics, pair_statistics
from jaxguard.train import sharding
from jaxguard.train.forward import (
    Choice,
    HeadKind,
    Viewed,
    answer_positions,
    first_view,
    hidden_states,
    targets_at,
    token_statistics,
)
from jaxguard.train.state import TrainState


@dataclass(frozen=True)
class StepPlan:
    """What a train step does, apart from its model and optimizer.

    Attributes:
        objective: what it minimises.
        answer_length: number of answer tokens per row that are looked at.
        share: share of the rows that get a second view.
        accumulate: number of micro-batches, run sequentially. Loss and gradient are those of the whole batch.
        head: how the statistics of the answers' tokens are computed.
        dropout_seed: seed of the adapters' dropout; None is without.
    """

    objective: Objective
    answer_length: int
    share: Fraction = Fraction(1)
    accumulate: int = 1
    head: HeadKind = "auto"
    dropout_seed: int | None = None

    @classmethod
    def of(cls, config: Config, end_token: int, head: HeadKind = "auto") -> StepPlan:
        """The plan of a run's configuration: the one place that picks its pieces from the sections."""
        return cls(
            objective=build_objective(config.objective, config.attack, steps=config.train.steps, end_token=end_token),
            answer_length=config.data.answer_length,
            share=config.view_share,
            accumulate=config.train.accumulate,
            head=head,
            dropout_seed=config.seed if config.model.trainable == "lora" and config.model.lora.dropout else None,
        )


@flax.struct.dataclass
class Constants(Generic[Leaf]):
    """What a step reads and never changes.

    Attributes:
        frozen: parameters that do not train.
        reference: what the trained parameters were at the start; None where the objective needs no reference.
        poisoned: True for the poisoned rows of the source, by row id; None unless an attacker's objective reads it.
    """

    frozen: dict[str, Leaf]
    reference: dict[str, Leaf] | None = None
    poisoned: Bool[Leaf, " N"] | None = None


class Rows(NamedTuple):
    """Rows of a batch on their way through a step, and the columns whose next tokens are the targets."""

    batch: Batch
    at: Int[Array, "B A"]
    targets: Targets
    memory: Float[Array, "B numbers"] | None
    poisoned: Bool[Array, " B"] | None


class Found(NamedTuple):
    """What one pass over some rows gives: the objective's terms, and what is added to each row's memory."""

    terms: Terms
    observed: Float[Array, "B numbers"] | None


Examine = Callable[[Parameters, Rows, Array | None], Found]
Step = Callable[[nnx.GraphDef, Constants[Array], TrainState, Batch], tuple[TrainState, Metrics]]


def make_step(
    plan: StepPlan, optimizer: optax.GradientTransformation, mesh: Mesh, places: Mapping[str, NamedSharding]
) -> Step:
    """The step of a plan.

    Args:
        plan: what it does.
        optimizer: applied to the trainable parameters.
        mesh: where it will run.
        places: placements of the parameters on it.
    """
    objective, needs, viewed = plan.objective, plan.objective.needs, Viewed.of(plan.share)
    choices = viewed.parts(needs.views)
    if needs.memory and len(choices) > 1:
        raise ValueError("an objective that remembers rows needs the same views of all of them: view.rows must be 1")

    def step(
        graph: nnx.GraphDef, constants: Constants[Array], state: TrainState, batch: Batch
    ) -> tuple[TrainState, Metrics]:
        rows, dropout = _rows(batch, state, constants, plan.answer_length), None
        if plan.dropout_seed is not None:
            dropout = jax.random.fold_in(jax.random.key(plan.dropout_seed), state.step)

        def examine(parameters: Parameters, rows: Rows, dropout: Array | None) -> Found:
            model, targets = merge(graph, constants.frozen, parameters), rows.targets
            with sharding.rows_on(mesh):
                hidden, again = hidden_states(model, rows.batch, rows.at, viewed, dropout)
            found = token_statistics(model, hidden, again, targets.tokens, viewed, mesh, plan.head)
            context = Context(memory=rows.memory, poisoned=rows.poisoned)
            if needs.hidden:
                unembedding = model.language.unembedding.rows(targets.tokens)
                context = dataclasses.replace(context, hidden=hidden, unembedding=unembedding)
            if constants.reference is not None:
                reference = merge(graph, constants.frozen, constants.reference)
                with sharding.rows_on(mesh):
                    before, _ = hidden_states(reference, first_view(rows.batch), rows.at, viewed)
                if needs.reference == "tokens":
                    (compared,) = token_statistics(reference, before, None, targets.tokens, viewed, mesh, plan.head)
                else:
                    logits = model.language.logits(hidden), reference.language.logits(before)
                    compared = pair_statistics(*logits, targets.tokens)
                context = dataclasses.replace(context, reference=compared)
            return _found(objective, choices, found, targets, context)

        if plan.accumulate == 1:

            def loss(parameters: Parameters) -> tuple[Array, tuple[Metrics, Array | None]]:
                found = examine(parameters, rows, dropout)
                total, metrics = objective.loss(terms=found.terms, step=state.step)
                return total, (metrics, found.observed)

            gradients, (metrics, observed) = jax.grad(loss, has_aux=True)(state.parameters)
        else:
            gradients, found = _accumulated(plan, examine, rows, dropout, state, mesh, places)
            _, metrics = objective.loss(terms=found.terms, step=state.step)
            batch, observed = sharding.micro_batches(batch, plan.accumulate, mesh), found.observed
        with jax.numpy_dtype_promotion("standard"):  # optax mixes int32 counts with float32
            updates, moments = optimizer.update(gradients, state.optimizer, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        memory = state.memory
        if memory is not None and observed is not None:
            memory = memory.at[batch.ids, batch.pairs].add(observed)
        return TrainState(state.step + 1, parameters, moments, memory), {
            **metrics,
            "gradient_norm": optax.tree.norm(gradients),
        }

    return step


def _rows(batch: Batch, state: TrainState, constants: Constants[Array], answer_length: int) -> Rows:
    at = answer_positions(batch.answer_mask, answer_length)
    targets = targets_at(batch, at)
    memory = None if state.memory is None else state.memory[batch.ids, batch.pairs]
    poisoned = None if constants.poisoned is None else constants.poisoned[batch.ids]
    return Rows(batch, at, targets, memory, poisoned)


def _found(
    objective: Objective,
    choices: Sequence[Choice],
    found: Sequence[TokenStatistics],
    targets: Targets,
    context: Context,
) -> Found:
    """The terms over all parts of the rows."""
    parts = [
        {"statistics": statistics, "targets": choose(targets), "context": choose(context)}
        for statistics, choose in zip(found, choices, strict=True)
    ]
    terms = [objective.terms(**part) for part in parts]
    summed = {name: functools.reduce(operator.add, (part[name] for part in terms)) for name in terms[0]}
    return Found(summed, objective.observe(**parts[0]))


def _accumulated(
    plan: StepPlan,
    examine: Examine,
    rows: Rows,
    dropout: Array | None,
    state: TrainState,
    mesh: Mesh,
    places: Mapping[str, NamedSharding],
) -> tuple[Parameters, Found]:
    """The gradient of the whole batch's loss, and its terms, micro-batch by micro-batch.

    Each micro-batch differentiates the whole batch's loss by its own part of the totals. Counts are known beforehand,
    and a loss that is linear in the totals does not ask what the others are.
    """
    parts = sharding.micro_batches(rows, plan.accumulate, mesh), jnp.arange(plan.accumulate)

    def key(number: Array) -> Array | None:
        return None if dropout is None else jax.random.fold_in(dropout, number)

    if plan.objective.needs.totals:
        _, passed = jax.lax.scan(lambda _, part: (None, examine(state.parameters, part[0], key(part[1]))), None, parts)
        whole = jax.tree.map(lambda leaf: leaf.sum(axis=0), passed.terms)
    else:
        whole = _counted(plan, rows)

    def add(total: Parameters, part: tuple[Rows, Array]) -> tuple[Parameters, Found]:
        def loss(parameters: Parameters) -> tuple[Array, Found]:
            found = examine(parameters, part[0], key(part[1]))
            moving = {name: term.total - jax.lax.stop_gradient(term.total) for name, term in found.terms.items()}
            terms = {name: Sum(whole[name].total + moving[name], whole[name].count) for name in whole}
            return plan.objective.loss(terms=terms, step=state.step)[0], found

        gradients, found = jax.grad(loss, has_aux=True)(state.parameters)
        return jax.tree.map(jnp.add, total, gradients), found

    gradients, found = jax.lax.scan(add, sharding.zeros_like(state.parameters, places), parts)
    return gradients, Found(jax.tree.map(lambda leaf: leaf.sum(axis=0), found.terms), found.observed)


def _counted(plan: StepPlan, rows: Rows) -> Terms:
    """The terms of the whole batch with totals of 0: counts do not depend on what the model says."""
    needs, viewed = plan.objective.needs, Viewed.of(plan.share)
    zeros = jnp.zeros(rows.targets.tokens.shape, jnp.float32)

    def statistics(kind: type[TokenStatistics], like: Array) -> TokenStatistics:
        return kind(**{field.name: jnp.zeros_like(like) for field in dataclasses.fields(kind)})

    kinds = [TokenStatistics] if needs.views == 1 else [PairStatistics, TokenStatistics]
    choices = viewed.parts(needs.views)
    found = [statistics(kind, choose(zeros)) for kind, choose in zip(kinds, choices, strict=False)]
    context = Context(memory=rows.memory, poisoned=rows.poisoned)
    if needs.hidden:
        context = dataclasses.replace(context, hidden=zeros[..., None], unembedding=zeros[..., None])
    if needs.reference is not None:
        kind = TokenStatistics if needs.reference == "tokens" else PairStatistics
        context = dataclasses.replace(context, reference=statistics(kind, zeros))
    terms = _found(plan.objective, choices, found, rows.targets, context).terms
    return {name: Sum(jnp.zeros_like(term.total), term.count) for name, term in terms.items()}
