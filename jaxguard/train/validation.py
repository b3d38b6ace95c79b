"""The loss on rows that are not trained on, which chooses the best checkpoint."""

from __future__ import annotations

import numpy as np

from jaxguard.config import DataConfig, TrainConfig
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

    Args:
        setup: the model.
        encoder: of its checkpoint.
        data: names the split, and says how rows become batches.
        seed: chooses one of a row's answers.
        train: number of rows (`validation`), and of a batch.

    Raises:
        UserError: the split is missing, or has fewer rows.
    """

    def __init__(self, setup: Setup, encoder: Encoder, *, data: DataConfig, seed: int, train: TrainConfig):
        self._mesh, self._encoder, self._data, self._seed, self._train = setup.model.mesh, encoder, data, seed, train
        self._source = open_source(data.source, data.root, data.validation_split)
        if train.validation > len(self._source):
            raise UserError(
                f"train.validation is {train.validation}: {data.validation_split!r} of {data.source} has "
                f"{len(self._source)} rows"
            )
        self._measure = Measure(setup.model, setup.frozen, data.answer_length)

    def __call__(self, parameters: Parameters) -> float:
        """Measure these trained parameters; the same number on every process."""
        batches = validation_batches(
            self._data,
            self._seed,
            self._encoder,
            self._source,
            count=self._train.validation,
            batch_size=self._train.batch_size,
            places=sharding.local_places(self._train.batch_size, self._mesh),
        )
        placed = (sharding.place_batch(batch, self._mesh) for batch in batches)
        found = list(self._measure(parameters, placed))
        nll = [rows.sums(rows.tokens.nll_p).sum() for rows in found]
        return float(np.sum(nll) / np.sum([rows.counts.sum() for rows in found]))
