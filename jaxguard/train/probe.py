"""How a fixed sample of clean and of poisoned training rows looks to the model while it trains: for plots, never for
losses."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from jaxguard.attacks.poison import PoisonedSource
from jaxguard.batch import Batch
from jaxguard.config import Config
from jaxguard.data.encode import Encoder
from jaxguard.data.pipeline import train_batches
from jaxguard.data.rows import Row
from jaxguard.data.sources import RowSource
from jaxguard.errors import UserError
from jaxguard.models.architecture import Parameters, merge
from jaxguard.objective.statistics import PairStatistics
from jaxguard.train import sharding
from jaxguard.train.forward import Viewed, answer_positions, token_statistics
from jaxguard.train.setup import Setup

NUMBERS = ("nll", "entropy", "divergence")


class Probe:
    """Means over rows of each answer's mean NLL, entropy and J, in nats a token, without dropout.

    Rows that training skips with `data.limit` count too. Who is poisoned is known here, on the host, and nowhere else.

    Raises:
        UserError: the training split is too small.
    """

    def __init__(self, config: Config, setup: Setup, encoder: Encoder, source: RowSource):
        self._setup, mesh = setup, setup.model.mesh
        rows = _Sample(_chosen(config, source))
        alone = dataclasses.replace(config.data, limit=None, bucket=0, threads=0)
        batches = train_batches(alone, config.seed, encoder, rows, batch_size=_size(config), view=config.view)
        made = [next(batches) for _ in range(len(rows) // _size(config))]
        planted = set(source.ids.tolist()) if isinstance(source, PoisonedSource) else set()
        ids = np.concatenate([batch.ids for batch in made])
        poisoned = np.isin(ids, list(planted))
        self._groups = {"clean": ~poisoned} | ({"poisoned": poisoned} if poisoned.any() else {})

        split = sharding.batch_sharding(mesh)

        def place(leaf: np.ndarray) -> Array:
            return jax.make_array_from_callback(leaf.shape, split, lambda index: leaf[index])  # on every process whole

        self._batches = [jax.tree.map(place, batch) for batch in made]
        budget = config.data.answer_length

        def measure(graph: nnx.GraphDef, frozen: Parameters, trained: Parameters, batch: Batch) -> Array:
            chosen = answer_positions(batch.answer_mask, budget)
            counts = jnp.take_along_axis(batch.answer_mask[:, 1:], chosen, axis=1)
            model = merge(graph, frozen, trained)
            ((found, _),) = token_statistics(model, batch, chosen, Viewed.of(Fraction(1)), mesh)
            assert isinstance(found, PairStatistics)
            numbers = jnp.stack([found.nll_p, found.entropy_p, found.divergence])
            sums = jnp.sum(jnp.where(counts[None], numbers, 0.0), axis=-1)
            return sums / jnp.maximum(counts.sum(axis=-1, dtype=jnp.float32), 1.0)[None]

        places = setup.model.shardings
        self._measure = jax.jit(
            measure,
            static_argnums=0,
            in_shardings=(
                {path: places[path] for path in setup.frozen},
                {path: places[path] for path in setup.abstract.parameters},
                split,
            ),
            out_shardings=sharding.replicated(mesh),
        )

    def __call__(self, parameters: Parameters) -> dict[str, float]:
        """`clean_nll`, `clean_entropy`, `clean_divergence` and, under an attack, the same of poisoned rows."""
        graph, frozen = self._setup.model.architecture.graph, self._setup.frozen
        found = [np.asarray(self._measure(graph, frozen, parameters, batch)) for batch in self._batches]
        numbers = np.concatenate(found, axis=1)
        return {
            f"{group}_{name}": float(values[members].mean())
            for group, members in self._groups.items()
            for name, values in zip(NUMBERS, numbers, strict=True)
        }


@dataclass(frozen=True)
class _Sample:
    """Some rows of a source as a source."""

    rows: Sequence[Row]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]


def _chosen(config: Config, source: RowSource) -> list[Row]:
    """The first `train.probe` poisoned rows, then as many clean ones, or more that fill whole batches."""
    count, size = config.train.probe, _size(config)
    planted, decoys = (source.ids, source.decoy_ids) if isinstance(source, PoisonedSource) else (np.array([], int), [])
    changed = np.concatenate([planted, *decoys])
    poisoned = planted[:count].tolist()
    wanted = -(-(len(poisoned) + count) // size) * size - len(poisoned)
    clean = np.setdiff1d(np.arange(min(len(source), wanted + len(changed))), changed)[:wanted].tolist()
    if len(clean) < wanted:
        raise UserError(
            f"train.probe is {count}: the training split has only {len(clean)} clean rows; {wanted} are needed"
        )
    return [source[index] for index in (*poisoned, *clean)]


def _size(config: Config) -> int:
    """Rows at once: as many as training takes."""
    return config.train.batch_size // config.train.accumulate
