"""Token statistics of rows under any parameters; probe and validation are made of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxguard.batch import Batch
from jaxguard.models.architecture import Parameters, merge
from jaxguard.objective.base import Targets
from jaxguard.objective.statistics import TokenStatistics
from jaxguard.train import sharding
from jaxguard.train.forward import Viewed, answer_positions, hidden_states, targets_at, token_statistics
from jaxguard.train.setup import ModelSpec


@flax.struct.dataclass
class Alternatives:
    """The likeliest tokens at each place, in falling order, and their probabilities."""

    tokens: Int[Array, "B A alternatives"]
    chances: Float[Array, "B A alternatives"]


@dataclass(frozen=True)
class RowStatistics:
    """Token statistics of the answers of a batch's rows; whole on every process.

    Attributes:
        ids: of the rows.
        pairs: which of its pairs each row shows (`Batch.pairs`).
        tokens: statistics of the answers' tokens, [B, A]; `PairStatistics` where the batch has two views.
        targets: the true tokens, and where there are any.
        alternatives: the model's likeliest tokens at each place; None unless asked for.
    """

    ids: Int[Array, " B"]
    pairs: Int[Array, " B"]
    tokens: TokenStatistics
    targets: Targets
    alternatives: Alternatives | None = None

    def sums(self, values: Float[Array, "B A"]) -> Float[np.ndarray, " B"]:
        """Sum per-token numbers over each row's answers."""
        return np.where(self.targets.answer, values, 0.0).sum(axis=-1)

    @property
    def counts(self) -> Int[np.ndarray, " B"]:
        """Number of answer tokens of each row."""
        return np.asarray(self.targets.answer).sum(axis=-1)


class Measure:
    """Measures rows of one model; compiled once per batch shape, without dropout.

    Args:
        model: the model.
        frozen: its weights that do not train.
        answer_length: number of answer tokens per row that are looked at.
        alternatives: number of likeliest tokens to return of each place; 0: none.
    """

    def __init__(self, model: ModelSpec, frozen: Parameters, answer_length: int, alternatives: int = 0):
        self._model, self._frozen = model, frozen

        def measure(
            graph: nnx.GraphDef, frozen: Parameters, trained: Parameters, batch: Batch
        ) -> tuple[Array, Array, TokenStatistics, Targets, Alternatives | None]:
            at, viewed = answer_positions(batch.answer_mask, answer_length), Viewed.of(Fraction(1))
            targets = targets_at(batch, at)
            merged = merge(graph, frozen, trained)
            with sharding.rows_on(model.mesh):
                hidden, again = hidden_states(merged, batch, at, viewed)
            (found,) = token_statistics(merged, hidden, again, targets.tokens, viewed, model.mesh)
            likeliest = None
            if alternatives:
                logits = sharding.logits_on(merged.language.logits(hidden), model.mesh)
                chances, tokens = jax.lax.top_k(jax.nn.softmax(logits.astype(jnp.float32)), alternatives)
                likeliest = Alternatives(tokens, chances)
            return jnp.asarray(batch.ids), jnp.asarray(batch.pairs), found, targets, likeliest

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
            yield RowStatistics(*found)
