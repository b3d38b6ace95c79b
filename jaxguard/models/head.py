"""The output head: hidden states to logits, for both layouts of its weights."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxguard.models.layers import Embedding, Linear


@flax.struct.dataclass
class Head:
    """Output head z = cap tanh(y / cap) with y = scale (h W + b); cap, scale and bias are optional.

    ``vocabulary_axis`` is the vocabulary's axis of ``weight``: 1 for a kernel [D, V], 0 for a tied embedding table
    [V, D].
    """

    weight: Float[Array, "D V"] | Float[Array, "V D"]
    bias: Float[Array, " V"] | None = None
    vocabulary_axis: int = flax.struct.field(pytree_node=False, default=1)
    scale: float = flax.struct.field(pytree_node=False, default=1.0)
    cap: float | None = flax.struct.field(pytree_node=False, default=None)

    @classmethod
    def of(cls, embedding: Embedding, head: Linear | None) -> Head:
        """Return a decoder's own output head or, if it has none, its embedding table as one."""
        return cls(embedding.table[...], vocabulary_axis=0) if head is None else cls(head.kernel[...])

    @property
    def vocabulary(self) -> int:
        return self.weight.shape[self.vocabulary_axis]

    def rows(self, tokens: Int[Array, "*N"]) -> Float[Array, "*N D"]:
        """Return the output vectors of these tokens."""
        return jnp.moveaxis(self.weight, self.vocabulary_axis, 0)[tokens]

    def logits(self, hidden: Float[Array, "*N D"]) -> Float[Array, "*N V"]:
        """Compute float32 logits with a matmul in the type of `hidden` that accumulates in float32."""
        weight = self.weight.astype(hidden.dtype)
        contract = ((hidden.ndim - 1,), (1 - self.vocabulary_axis,))
        z = self.scale * jax.lax.dot_general(hidden, weight, (contract, ((), ())), preferred_element_type=jnp.float32)
        if self.bias is not None:
            z += jnp.broadcast_to(self.scale * self.bias.astype(jnp.float32), z.shape)
        return z if self.cap is None else self.cap * jnp.tanh(z / self.cap)
