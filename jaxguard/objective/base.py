"""The contract of an objective: what it needs, its terms as sums, and the loss over them.

There is one train step. It computes the statistics of the answers' tokens and whatever else an objective says it needs,
asks for its terms, adds them up over micro-batches, and differentiates the loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxguard.objective.statistics import TokenStatistics


@flax.struct.dataclass
class Sum:
    """A masked sum and the number of entries it was taken over; float32 scalars.

    The sums of micro-batches, devices and processes add up to that of the whole batch.
    """

    total: Float[Array, ""]
    count: Float[Array, ""]

    @classmethod
    def over(cls, values: Float[Array, "*N"], where: Bool[Array, "*N"]) -> Sum:
        """The sum of the marked values."""
        return cls(jnp.sum(jnp.where(where, values, 0.0)), where.sum(dtype=jnp.float32))

    @classmethod
    def zero(cls) -> Sum:
        """The sum of nothing."""
        return cls(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32))

    @property
    def mean(self) -> Float[Array, ""]:
        """Total over count; 0 where nothing was counted."""
        return self.total / jnp.maximum(self.count, 1.0)

    def __add__(self, other: Sum) -> Sum:
        return Sum(self.total + other.total, self.count + other.count)


Terms = dict[str, Sum]
Metrics = dict[str, Float[Array, ""]]


@flax.struct.dataclass
class Targets:
    """The next tokens that a step looks at: of each of B rows, the first A that belong to answers.

    Attributes:
        tokens: the true tokens.
        segments: the segment of each (`Batch.segments`); packed rows hold one answer per segment.
        answer: True where the token belongs to an answer; rows with fewer answer tokens are filled up.
    """

    tokens: Int[Array, "B A"]
    segments: Int[Array, "B A"]
    answer: Bool[Array, "B A"]


@dataclass(frozen=True)
class Needs:
    """What the step must provide beside token statistics of the original view. Nothing else is computed.

    Attributes:
        views: 2 if the perturbed view is read too; the statistics are then `PairStatistics` where a row has one.
        reference: statistics of the weights that training starts from. "tokens": the reference's own NLL and entropy.
            "divergence": pair statistics of the model (p) and the reference (q), with both logits in memory.
        hidden: True if the last hidden states and the unembedding rows of the true tokens are read.
        memory: numbers kept of each row across epochs (`observe`); 0 keeps none.
        labels: True if the objective reads which rows are poisoned. Attackers do; a defender must not.
        totals: True if a term's weight in the loss depends on the terms' totals. With micro-batches, a forward pass
            over all of them then comes first.
    """

    views: int = 1
    reference: Literal["tokens", "divergence"] | None = None
    hidden: bool = False
    memory: int = 0
    labels: bool = False
    totals: bool = False


@flax.struct.dataclass
class Context:
    """What an objective asked for in `Needs`; the rest is None. Gradients flow through the model's own part of it only.

    Attributes:
        reference: statistics of the same tokens under the reference.
        hidden: the last hidden states that the tokens are predicted from.
        unembedding: the output head's vectors of the true tokens.
        memory: what `observe` has added up for each row and the pair that it shows.
        poisoned: True for a poisoned row.
    """

    reference: TokenStatistics | None = None
    hidden: Float[Array, "B A D"] | None = None
    unembedding: Float[Array, "B A D"] | None = None
    memory: Float[Array, "B numbers"] | None = None
    poisoned: Bool[Array, " B"] | None = None


@runtime_checkable
class Objective(Protocol):
    """What training minimises. Pure: everything that changes comes in as an argument."""

    @property
    def needs(self) -> Needs:
        """What the step must provide."""
        ...

    def terms(self, *, statistics: TokenStatistics, targets: Targets, context: Context) -> Terms:
        """The objective's terms over some rows; the same names at every call, finite where nothing counts.

        Counts are functions of `targets` and `context.poisoned` alone: they are known before the model has run.
        """
        ...

    def loss(self, *, terms: Terms, step: Int[Array, ""]) -> tuple[Float[Array, ""], Metrics]:
        """The scalar loss of a batch, and what is logged: at least `loss` and `ce`, in nats.

        Unless `needs.totals`, it is linear in the totals: the gradient of a batch is the sum of its micro-batches'.
        """
        ...

    def observe(
        self, *, statistics: TokenStatistics, targets: Targets, context: Context
    ) -> Float[Array, "B numbers"] | None:
        """What is added to the memory of each row; None where `needs.memory` is 0."""
        return None
