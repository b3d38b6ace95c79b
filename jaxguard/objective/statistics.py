"""The six per-token numbers that every loss, gate and audit is a function of."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


@flax.struct.dataclass
class TokenStatistics:
    """Statistics of the original view, p, at each target token; float32, nats."""

    nll_p: Float[Array, "*N"]
    entropy_p: Float[Array, "*N"]


@flax.struct.dataclass
class PairStatistics(TokenStatistics):
    """Statistics of two views (p: original, q: perturbed) at each target token; float32, nats."""

    nll_q: Float[Array, "*N"]
    kl_pq: Float[Array, "*N"]
    kl_qp: Float[Array, "*N"]
    entropy_q: Float[Array, "*N"]

    @property
    def divergence(self) -> Float[Array, "*N"]:
        """J = KL(p || q) + KL(q || p)."""
        return self.kl_pq + self.kl_qp


def token_statistics(logits: Float[Array, "*N V"], targets: Int[Array, "*N"]) -> TokenStatistics:
    """Compute NLL and entropy of one view from logits: the reference form, which holds [*N, V] float32 arrays."""
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    return TokenStatistics(nll_p=-_pick(log_p, targets), entropy_p=-jnp.sum(jnp.exp(log_p) * log_p, -1))


def pair_statistics(
    logits_p: Float[Array, "*N V"], logits_q: Float[Array, "*N V"], targets: Int[Array, "*N"]
) -> PairStatistics:
    """Compute all six statistics from both views' logits: the reference form, oracle of any faster one.

    The divergences are taken as expectations of the difference of log-probabilities, so equal views give exactly 0.
    """
    log_p = jax.nn.log_softmax(logits_p.astype(jnp.float32))
    log_q = jax.nn.log_softmax(logits_q.astype(jnp.float32))
    p, q, ratio = jnp.exp(log_p), jnp.exp(log_q), log_p - log_q
    return PairStatistics(
        nll_p=-_pick(log_p, targets),
        nll_q=-_pick(log_q, targets),
        kl_pq=jnp.sum(p * ratio, -1),
        kl_qp=-jnp.sum(q * ratio, -1),
        entropy_p=-jnp.sum(p * log_p, -1),
        entropy_q=-jnp.sum(q * log_q, -1),
    )


def _pick(log_probabilities: Float[Array, "*N V"], targets: Int[Array, "*N"]) -> Float[Array, "*N"]:
    return jnp.take_along_axis(log_probabilities, targets[..., None], axis=-1)[..., 0]
