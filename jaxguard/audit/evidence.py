"""What the reference makes of every answer token of the rows, in one pass."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Bool, Float, Int
from rich.console import Console
from rich.progress import track

from jaxguard import processes
from jaxguard.audit.rows import Shown
from jaxguard.config import Config
from jaxguard.data.encode import FIRST_PACKED, Encoder
from jaxguard.data.pipeline import Example, stack
from jaxguard.data.sources import RowSource
from jaxguard.train.measure import Measure, RowStatistics
from jaxguard.train.setup import load_model, prepare
from jaxguard.train.sharding import local_places, place_batch


@dataclass(frozen=True)
class Evidence:
    """One entry for each answer token; the tokens of a row's pair lie together, in their order.

    Attributes:
        rows: id of the row.
        pairs: pair of the row.
        tokens: the true token.
        nll: its NLL under the reference, nats.
        entropy: of what the reference predicts there, nats.
        alternatives: the tokens that the reference finds likeliest there.
        chances: their probabilities.
    """

    rows: Int[np.ndarray, " N"]
    pairs: Int[np.ndarray, " N"]
    tokens: Int[np.ndarray, " N"]
    nll: Float[np.ndarray, " N"]
    entropy: Float[np.ndarray, " N"]
    alternatives: Int[np.ndarray, "N alternatives"]
    chances: Float[np.ndarray, "N alternatives"]

    @property
    def surprise(self) -> Float[np.ndarray, " N"]:
        """NLL beyond what was to be expected."""
        return self.nll - self.entropy

    def first(self) -> Bool[np.ndarray, " N"]:
        """True where an answer begins."""
        return (np.diff(self.rows, prepend=-1) != 0) | (np.diff(self.pairs, prepend=-1) != 0)

    def answers(self) -> Int[np.ndarray, " N"]:
        """The number of the answer, counted from 0, that each token belongs to."""
        return np.cumsum(self.first()) - 1

    def before(self) -> Int[np.ndarray, " N"]:
        """The answer token before each; -1 where an answer begins."""
        return np.where(self.first(), -1, np.roll(self.tokens, 1))

    def only(self, where: Bool[np.ndarray, " N"]) -> Evidence:
        """Some entries."""
        return Evidence(**{name: values[where] for name, values in vars(self).items()})

    @classmethod
    def joined(cls, parts: Sequence[Evidence]) -> Evidence:
        """The entries of several; of an answer that was measured twice, the first."""
        names = [field.name for field in dataclasses.fields(cls)]
        whole = cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
        first = whole.first()
        _, kept = np.unique(np.stack([whole.rows, whole.pairs])[:, first], axis=1, return_index=True)
        return whole.only(np.isin(whole.answers(), kept))


@dataclass(frozen=True)
class Sight:
    """Does the reference look at the images? Mean rise of an answer token's NLL, in nats, with another row's image.

    `low` and `high` bound its 95% interval over rows.
    """

    mean: float
    low: float
    high: float

    @property
    def sees(self) -> bool:
        """True if the right image certainly helps."""
        return self.low > 0


class Reference:
    """The model that a run starts from, as a reader of the run's rows.

    Args:
        config: the run.
        encoder: of its checkpoint.
        source: its training rows.
    """

    def __init__(self, config: Config, encoder: Encoder, source: RowSource):
        model = load_model(config.model, config.mesh, config.seed)
        setup, self._start = prepare(model, config.model.trainable, config.train)
        alternatives = min(config.guard.alternatives, encoder.vocabulary_size)
        self._measure = Measure(setup.model, setup.frozen, config.data.answer_length, alternatives)
        self._example = Example(config.data, None, config.seed, encoder, source)
        self._size, self._mesh, self._right_padded = config.train.batch_size, model.mesh, config.data.pack == 1

    def read(self, shown: Sequence[Shown]) -> Evidence:
        """Measure every answer token of these rows."""
        console = Console(stderr=True, quiet=not (processes.is_main() and sys.stderr.isatty()))
        starts, parts = range(0, len(shown), self._size), []
        for start in track(starts, "reading the rows with the reference", console=console):
            filled, found = self._found(shown, start)
            parts.append(_entries(found, filled, min(self._size, len(shown) - start)))
        return Evidence.joined(parts)

    def sight(self, shown: Sequence[Shown]) -> Sight | None:
        """Compare these rows with the same rows whose images belong to their neighbours; None without images."""
        rises = []
        for start in range(0, len(shown) - self._size + 1, self._size):
            (_, right), (_, wrong) = (self._found(shown, start, moved) for moved in (0, 1))
            where = np.asarray(right.counts) > 0
            rise = (wrong.sums(wrong.tokens.nll_p) - right.sums(right.tokens.nll_p)) / np.maximum(right.counts, 1)
            rises.append(rise[where])
        values = np.concatenate([*rises, np.zeros(0)])
        if not np.any(values):
            return None
        mean, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
        return Sight(mean, mean - 1.96 * error, mean + 1.96 * error)

    def _found(self, shown: Sequence[Shown], start: int, moved: int = 0) -> tuple[list[Shown], RowStatistics]:
        """Statistics of a batch, filled up with its last row; each row with the image of the row `moved` before it."""
        filled = [shown[min(start + number, len(shown) - 1)] for number in range(self._size)]
        own = [self._example(filled[number].place) for number in local_places(self._size, self._mesh)]
        batch = stack(own, right_padded=self._right_padded)
        if moved:
            batch = dataclasses.replace(batch, images=np.roll(batch.images, moved, axis=0))
        (found,) = self._measure(self._start, [place_batch(batch, self._mesh)])
        return filled, found


def _entries(found: RowStatistics, shown: Sequence[Shown], count: int) -> Evidence:
    """The answer tokens of the first `count` rows of a batch."""
    assert found.alternatives is not None
    host = jax.tree.map(np.asarray, found.targets)
    where = host.answer & (np.arange(len(shown)) < count)[:, None]
    longest = max(len(row.pairs) for row in shown)
    drawn = np.array([[*row.pairs, *[-1] * (longest - len(row.pairs))] for row in shown])
    entries = {
        "rows": np.broadcast_to(np.asarray(found.ids)[:, None], where.shape),
        "pairs": np.take_along_axis(drawn, np.maximum(host.segments - FIRST_PACKED, 0), axis=1),
        "tokens": host.tokens,
        "nll": found.tokens.nll_p,
        "entropy": found.tokens.entropy_p,
        "alternatives": found.alternatives.tokens,
        "chances": found.alternatives.chances,
    }
    return Evidence(**{name: np.asarray(values)[where] for name, values in entries.items()})
