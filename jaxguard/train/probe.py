"""How a fixed sample of clean and of poisoned training rows looks to the model during training.

For plots, never for losses: who is poisoned is known here, on the host, and nowhere else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Array, Float

from jaxguard.attacks.poison import PoisonedSource
from jaxguard.config import DataConfig, TrainConfig, ViewConfig
from jaxguard.data.encode import Encoder
from jaxguard.data.pipeline import train_batches
from jaxguard.data.rows import Row
from jaxguard.data.sources import RowSource
from jaxguard.errors import UserError
from jaxguard.models.architecture import Parameters
from jaxguard.objective.statistics import PairStatistics
from jaxguard.train import sharding
from jaxguard.train.measure import Measure, RowStatistics
from jaxguard.train.setup import Setup

NUMBERS = ("nll", "entropy", "divergence")


class Probe:
    """Means over rows of each answer's mean NLL, entropy and J, in nats per token, without dropout.

    Rows that training skips with `data.limit` are included.

    Args:
        setup: the model.
        encoder: of its checkpoint.
        source: the training rows.
        data: how rows become batches.
        view: the second view.
        seed: of the views.
        train: number of rows of each kind (`probe`), and rows at a time: those of a micro-batch.

    Raises:
        UserError: the training split is too small.
    """

    def __init__(
        self,
        setup: Setup,
        encoder: Encoder,
        source: RowSource,
        *,
        data: DataConfig,
        view: ViewConfig,
        seed: int,
        train: TrainConfig,
    ):
        mesh, size = setup.model.mesh, train.batch_size // train.accumulate
        rows = Sample(probe_rows(source, train.probe, size))
        alone = dataclasses.replace(data, limit=None, bucket=0, threads=0)
        batches = train_batches(alone, seed, encoder, rows, batch_size=size, view=view)
        made = [next(batches) for _ in range(len(rows) // size)]
        ids = np.concatenate([batch.ids for batch in made])
        poisoned = np.isin(ids, source.ids if isinstance(source, PoisonedSource) else [])
        self._groups = {"clean": ~poisoned} | ({"poisoned": poisoned} if poisoned.any() else {})
        split = sharding.batch_sharding(mesh)

        def place(leaf: np.ndarray) -> Array:
            return jax.make_array_from_callback(leaf.shape, split, lambda index: leaf[index])  # whole on every process

        self._batches = [jax.tree.map(place, batch) for batch in made]
        self._measure = Measure(setup.model, setup.frozen, data.answer_length)

    def __call__(self, parameters: Parameters) -> dict[str, float]:
        """Measure `clean_nll`, `clean_entropy`, `clean_divergence` and, under an attack, the same of poisoned rows."""
        found = [_means(rows) for rows in self._measure(parameters, self._batches)]
        return {
            f"{group}_{name}": float(np.concatenate([means[name] for means in found])[members].mean())
            for group, members in self._groups.items()
            for name in NUMBERS
        }


@dataclass(frozen=True)
class Sample:
    """Some rows of a source as a source."""

    rows: Sequence[Row]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]


def probe_rows(source: RowSource, count: int, batch_size: int) -> list[Row]:
    """Choose the first `count` poisoned rows, then as many clean ones, or more to fill whole batches.

    Raises:
        UserError: the source has fewer clean rows.
    """
    poisoned, decoys = (source.ids, source.decoy_ids) if isinstance(source, PoisonedSource) else (np.array([], int), [])
    changed = np.concatenate([poisoned, *decoys])
    chosen = poisoned[:count].tolist()
    wanted = -(-(len(chosen) + count) // batch_size) * batch_size - len(chosen)
    clean = np.setdiff1d(np.arange(min(len(source), wanted + len(changed))), changed)[:wanted].tolist()
    if len(clean) < wanted:
        raise UserError(
            f"train.probe is {count}: the training split has only {len(clean)} clean rows; {wanted} are needed"
        )
    return [source[index] for index in (*chosen, *clean)]


def _means(rows: RowStatistics) -> dict[str, Float[np.ndarray, " B"]]:
    """Mean of each number over the tokens of each row's answers."""
    assert isinstance(rows.tokens, PairStatistics)
    numbers = (rows.tokens.nll_p, rows.tokens.entropy_p, rows.tokens.divergence)
    count = np.maximum(rows.counts, 1)
    return {name: rows.sums(values) / count for name, values in zip(NUMBERS, numbers, strict=True)}
