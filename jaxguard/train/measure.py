"""Token statistics of rows under any parameters; probe and validation are made of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxguard.batch import Batch
from jaxguard.models.architecture import Parameters, merge
from jaxguard.objective.statistics import TokenStatistics
from jaxguard.train import sharding
from jaxguard.train.forward import Viewed, answer_positions, hidden_states, token_statistics
from jaxguard.train.setup import ModelSpec


@dataclass(frozen=True)
class RowStatistics:
    """Token statistics of the answers of a batch's rows; host arrays, whole on every process.

    Attributes:
        ids: of the rows.
        pairs: which of its pairs each row shows (`Batch.pairs`).
        tokens: statistics of the answers' tokens, [B, A]; `PairStatistics` where the batch has two views.
        where: True where there is such a token.
    """

    ids: Int[np.ndarray, " B"]
    pairs: Int[np.ndarray, " B"]
    tokens: TokenStatistics
    where: Bool[np.ndarray, "B A"]

    def sums(self, values: Float[Array | np.ndarray, "B A"]) -> Float[np.ndarray, " B"]:
        """Sum per-token numbers over each row's answers."""
        return np.where(self.where, values, 0.0).sum(axis=-1)

    @property
    def counts(self) -> Int[np.ndarray, " B"]:
        """Number of answer tokens of each row."""
        return self.where.sum(axis=-1)


class Measure:
    """Measures rows of one model; compiled once per batch shape, without dropout.

    Args:
        model: the model.
        frozen: its weights that do not train.
        answer_length: number of answer tokens per row that are looked at.
    """

    def __init__(self, model: ModelSpec, frozen: Parameters, answer_length: int):
        self._model, self._frozen = model, frozen

        def measure(
            graph: nnx.GraphDef, frozen: Parameters, trained: Parameters, batch: Batch
        ) -> tuple[Array, Array, TokenStatistics, Array]:
            at, viewed = answer_positions(batch.answer_mask, answer_length), Viewed.of(Fraction(1))
            targets, where = (
                jnp.take_along_axis(leaf[:, 1:], at, axis=1) for leaf in (batch.tokens, batch.answer_mask)
            )
            merged = merge(graph, frozen, trained)
            with sharding.rows_on(model.mesh):
                hidden, again = hidden_states(merged, batch, at, viewed)
            (found,) = token_statistics(merged, hidden, again, targets, viewed, model.mesh)
            return jnp.asarray(batch.ids), jnp.asarray(batch.pairs), found, where

        places = model.shardings
        self._measure = jax.jit(
            measure,
            static_argnums=0,
            in_shardings=(
                {path: places[path] for path in frozen},
                {path: places[path] for path in places if path not in frozen},
                sharding.batch_sharding(model.mesh),
            ),
            out_shardings=sharding.replicated(model.mesh),
        )

    def __call__(self, parameters: Parameters, batches: Iterable[Batch]) -> Iterator[RowStatistics]:
        """Measure batches that are placed on the mesh, under these trained parameters."""
        for batch in batches:
            found = self._measure(self._model.architecture.graph, self._frozen, parameters, batch)
            yield RowStatistics(*jax.tree.map(np.asarray, found))
