"""The loss on rows that are not trained on, by which the best checkpoint is told."""

from __future__ import annotations

import numpy as np

from jaxguard.config import Config
from jaxguard.data.encode import Encoder
from jaxguard.data.pipeline import validation_batches
from jaxguard.data.sources import open_source
from jaxguard.errors import UserError
from jaxguard.models.architecture import Parameters
from jaxguard.train import sharding
from jaxguard.train.measure import Measure
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
        self._measure = Measure(setup.model, setup.frozen, config.data.answer_length)

    def __call__(self, parameters: Parameters) -> float:
        """Of these trained parameters; the same on every process."""
        config, mesh = self._config, self._setup.model.mesh
        batches = validation_batches(
            config.data,
            config.seed,
            self._encoder,
            self._source,
            count=config.train.validation,
            batch_size=config.train.batch_size,
            places=sharding.local_places(config.train.batch_size, mesh),
        )
        placed = (sharding.place_batch(batch, mesh) for batch in batches)
        found = list(self._measure(parameters, placed))
        nll = [rows.sums(rows.tokens.nll_p).sum() for rows in found]
        return float(np.sum(nll) / np.sum([rows.counts.sum() for rows in found]))
