"""Both views of a batch through the model in one call, and the statistics of their answers' tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from jaxguard.batch import Batch
from jaxguard.models import lora
from jaxguard.models.attention import pack, unpack
from jaxguard.objective import fused, statistics
from jaxguard.objective.base import Targets
from jaxguard.objective.statistics import TokenStatistics
from jaxguard.train.sharding import head_split, logits_on

Choice = Callable[[Any], Any]
"""Picks some rows of every array of a tree."""
HeadKind = Literal["auto", "reference", "fused"]
"""How token statistics are computed: from logits in memory, streamed over the vocabulary, or by the rule of memory."""


def answer_positions(answer_mask: Bool[Array | np.ndarray, "B T"], budget: int) -> Int[Array, "B A"]:
    """Choose the first `budget` positions of each row whose next token is an answer's; others fill the rest."""
    return jnp.argsort(~answer_mask[:, 1:], axis=1, stable=True)[:, :budget]


def targets_at(batch: Batch, at: Int[Array, "B A"]) -> Targets:
    """Gather the next tokens of these columns."""
    leaves = (batch.tokens, batch.segments, batch.answer_mask)
    return Targets(*(jnp.take_along_axis(jnp.asarray(leaf[:, 1:]), at, axis=1) for leaf in leaves))


@dataclasses.dataclass(frozen=True)
class Viewed:
    """Which rows have a second view: the first `taken` of every `group` neighbours, so that no row changes device."""

    taken: int
    group: int

    @classmethod
    def of(cls, share: Fraction) -> Viewed:
        return cls(share.numerator, share.denominator)

    @property
    def all(self) -> bool:
        return self.taken == self.group

    def rows(self, tree: Any) -> Any:
        """Select these rows of every array."""
        return jax.tree.map(lambda x: self._grouped(x)[:, : self.taken].reshape(-1, *x.shape[1:]), tree)

    def others(self, tree: Any) -> Any:
        """Select the rows without one."""
        return jax.tree.map(lambda x: self._grouped(x)[:, self.taken :].reshape(-1, *x.shape[1:]), tree)

    def stack(self, first: Array, second: Array) -> Array:
        """Join all rows and their second views to one batch; neighbours stay together."""
        second = second.reshape(-1, self.taken, *second.shape[1:])
        return jnp.concatenate([self._grouped(first), second], axis=1).reshape(-1, *first.shape[1:])

    def unstack(self, both: Array) -> tuple[Array, Array]:
        both = both.reshape(-1, self.group + self.taken, *both.shape[1:])
        first, second = both[:, : self.group], both[:, self.group :]
        return first.reshape(-1, *both.shape[2:]), second.reshape(-1, *both.shape[2:])

    def parts(self, views: int) -> list[Choice]:
        """Choices of rows with the same number of views: all; or those with a second view, then the others."""
        if views == 1:
            return [lambda tree: tree]
        return [self.rows] if self.all else [self.rows, self.others]

    def _grouped(self, x: Array) -> Array:
        return x.reshape(-1, self.group, *x.shape[1:])


def first_view(batch: Batch) -> Batch:
    """Return the batch with its original view alone."""
    return dataclasses.replace(batch, images=batch.images[:, :1], kept=None)


def hidden_states(
    model: Any, batch: Batch, at: Int[Array, "B A"], viewed: Viewed, dropout: Array | None = None
) -> tuple[Float[Array, "B A D"], Float[Array, "b A D"] | None]:
    """Compute hidden states of both views (None if the batch has one) at these columns, in one call of the model.

    Views of equal length are stacked along the batch. Where the second drops patches, its shorter rows are packed
    behind the first's, with attention that keeps them apart. `dropout` is the key that the dropout of adapters is drawn
    from, independently for each view; None is without.
    """
    if dropout is not None:
        lora.drop(model, dropout)
    first = tuple(jnp.asarray(leaf) for leaf in (batch.tokens, batch.positions, batch.segments))
    if batch.images.shape[1] == 1:
        return _take(model(*first, batch.images[:, 0], right_padded=batch.right_padded), at), None
    again, images, at_again = viewed.rows((first, batch.images[:, 1], at))
    if batch.kept is None:
        inputs = map(viewed.stack, (*first, jnp.asarray(batch.images[:, 0])), (*again, images))
        return viewed.unstack(_take(model(*inputs, right_padded=batch.right_padded), viewed.stack(at, at_again)))

    kept = viewed.rows(batch.kept)
    columns = model.kept_columns(again[0], kept)
    tokens, positions, segments = (
        jnp.take_along_axis(leaf, columns.reshape(*columns.shape, *[1] * (leaf.ndim - 2)), axis=1) for leaf in again
    )
    x, context = model.embed_inputs(first[0], first[2], batch.images[:, 0])
    if dropout is not None:
        lora.drop(model, jax.random.fold_in(dropout, 1))
    again_x, _ = model.embed_inputs(tokens, segments, images, kept)
    parts, rows = [x, again_x], len(batch.tokens) // viewed.group
    masks = tuple(
        model.attention_mask(*part, right_padded=batch.right_padded)
        for part in ((first[0], first[2]), (tokens, segments))
    )
    packed, _ = model.decode(pack(parts, rows), pack([first[1], positions], rows), masks, context)
    hidden, hidden_again = unpack(packed, [part.shape[:2] for part in parts])
    return _take(hidden, at), _take(hidden_again, _moved(columns, at_again))


def token_statistics(
    model: Any,
    hidden: Float[Array, "B A D"],
    again: Float[Array, "b A D"] | None,
    targets: Int[Array, "B A"],
    viewed: Viewed,
    mesh: Mesh,
    head: HeadKind = "auto",
) -> list[TokenStatistics]:
    """Compute statistics of the target tokens from `hidden_states`: one for each of `viewed.parts`.

    Pair statistics for the rows with a second view; if some rows have none, single-view statistics for these.

    Args:
        model: the merged model.
        hidden: hidden states of the original view.
        again: of the second view; None where there is none.
        targets: the true tokens.
        viewed: the rows whose second view counts.
        mesh: where it all is placed.
        head: "auto" follows the rule of `objective.fused`.
    """
    vocabulary = jax.eval_shape(model.language.logits, hidden).shape[-1]
    views = 1 if again is None else 2
    reference = head == "reference"
    if head == "auto":
        reference = fused.reference_fits(targets.size, views, vocabulary, list(mesh.devices.flat))

    def single(hidden: Array, targets: Array) -> TokenStatistics:
        if reference:
            return statistics.token_statistics(logits_on(model.language.logits(hidden), mesh), targets)
        return fused.token_statistics(hidden, weights, targets, split)

    def pair(hidden: Array, again: Array, targets: Array) -> TokenStatistics:
        if reference:
            logits = logits_on(model.language.logits(jnp.stack([hidden, again], axis=1)), mesh)
            return statistics.pair_statistics(logits[:, 0], logits[:, 1], targets)
        return fused.pair_statistics(hidden, again, weights, targets, split)

    if not reference:
        weights = model.language.unembedding
        split = head_split(mesh, weights) if mesh.size > 1 else None
    if again is None:
        return [single(hidden, targets)]
    found = [pair(viewed.rows(hidden), again, viewed.rows(targets))]
    if not viewed.all:
        found.append(single(viewed.others(hidden), viewed.others(targets)))
    return found


def _take(hidden: Array, columns: Array) -> Array:
    return jnp.take_along_axis(hidden, columns[..., None], axis=1)


def _moved(columns: Int[Array, "b U"], at: Int[Array, "b A"]) -> Int[Array, "b A"]:
    """Map columns of whole rows to columns among those kept; a column that is not kept gives any."""
    return jnp.argmax(columns[:, None, :] == at[:, :, None], axis=-1)
