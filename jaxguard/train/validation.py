"""The loss on rows that are not trained on, by which the best checkpoint is told."""

from __future__ import annotations

from fractions import Fraction

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from jaxguard.batch import Batch
from jaxguard.config import Config
from jaxguard.data.encode import Encoder
from jaxguard.data.pipeline import validation_batches
from jaxguard.data.sources import open_source
from jaxguard.errors import UserError
from jaxguard.models.architecture import Parameters, merge
from jaxguard.train import sharding
from jaxguard.train.forward import Viewed, answer_positions, token_statistics
from jaxguard.train.setup import Setup


class Validation:
    """Mean NLL of an answer token, in nats, over the first `train.validation` rows of the validation split.

    Raises:
        UserError: the split is missing, or has fewer rows.
    """

    def __init__(self, config: Config, setup: Setup, encoder: Encoder):
        self._config, self._setup, self._encoder = config, setup, encoder
        self._source = open_source(config.data.source, config.data.root, config.data.validation_split)
        if config.train.validation > len(self._source):
            raise UserError(
                f"train.validation is {config.train.validation}: {config.data.validation_split!r} of "
                f"{config.data.source} has {len(self._source)} rows"
            )
        mesh, budget = setup.model.mesh, config.data.answer_length

        def loss(graph: nnx.GraphDef, frozen: Parameters, trained: Parameters, batch: Batch) -> tuple[Array, Array]:
            chosen = answer_positions(batch.answer_mask, budget)
            counts = jnp.take_along_axis(batch.answer_mask[:, 1:], chosen, axis=1)
            parts = token_statistics(merge(graph, frozen, trained), batch, chosen, Viewed.of(Fraction(1)), mesh)
            nll = parts[0][0].nll_p
            return jnp.sum(jnp.where(counts, nll, 0.0)), counts.sum(dtype=jnp.float32)

        places, everywhere = setup.model.shardings, sharding.replicated(mesh)
        self._loss = jax.jit(
            loss,
            static_argnums=0,
            in_shardings=(
                {path: places[path] for path in setup.frozen},
                {path: places[path] for path in setup.abstract.parameters},
                sharding.batch_sharding(mesh),
            ),
            out_shardings=everywhere,
        )

    def __call__(self, parameters: Parameters) -> float:
        """Of these trained parameters; the same on every process."""
        config, model = self._config, self._setup.model
        places = sharding.local_places(config.train.batch_size, model.mesh)
        sums = [
            self._loss(
                model.architecture.graph, self._setup.frozen, parameters, sharding.place_batch(batch, model.mesh)
            )
            for batch in validation_batches(
                config.data,
                config.seed,
                self._encoder,
                self._source,
                count=config.train.validation,
                batch_size=config.train.batch_size,
                places=places,
            )
        ]
        return float(sum(float(nll) for nll, _ in sums) / sum(float(count) for _, count in sums))
