"""Flamingo's decoder (arXiv 2204.14198): a Llama with gated cross-attention blocks that attend to the images."""

from __future__ import annotations

from dataclasses import dataclass, replace

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from jaxguard.config import Remat
from jaxguard.models.attention import Cache, Entry, Masks, attention
from jaxguard.models.head import Head
from jaxguard.models.layers import ACTIVATIONS, Embedding, Linear, RMSNorm, grouped, scan, stack
from jaxguard.models.llama import Llama, LlamaConfig, LlamaLayer


@dataclass(frozen=True)
class GatedConfig:
    """The fields of `IdeficsConfig` that shape the decoder, with that class's defaults."""

    llama: LlamaConfig
    vision_width: int = 768
    additional_vocab_size: int = 0
    """Number of tokens after the vocabulary, whose embeddings and output weights are stored separately."""
    cross_layer_interval: int = 1
    """Number of layers after each cross-attention block."""
    qk_layer_norms: bool = False
    alpha_type: str = "float"
    """Shape of a block's gates: one number each ("float") or one per channel ("vector")."""


@flax.struct.dataclass
class VisionContext:
    """The images' vectors of each row, and which of them each token attends to."""

    states: Float[Array, "B P F"]
    visible: Bool[Array, "B T P"]


class GatedCrossAttention(nnx.Module):
    """Cross-attention and a feed-forward, each scaled by a tanh gate that is zero at first."""

    def __init__(self, config: GatedConfig, rngs: nnx.Rngs):
        width, inner = config.llama.hidden_size, config.llama.intermediate_size
        epsilon, depth = config.llama.rms_norm_eps, config.llama.hidden_size // config.llama.num_attention_heads
        self.heads, self.act = config.llama.num_attention_heads, config.llama.hidden_act
        self.norm1, self.norm2 = RMSNorm(width, epsilon=epsilon), RMSNorm(width, epsilon=epsilon)
        self.query = Linear(width, width, bias=False, rngs=rngs)
        self.key, self.value = (Linear(config.vision_width, width, bias=False, rngs=rngs) for _ in range(2))
        self.out = Linear(width, width, bias=False, rngs=rngs)
        self.query_norm, self.key_norm = (
            RMSNorm(depth, epsilon=epsilon) if config.qk_layer_norms else None for _ in range(2)
        )
        self.gate, self.up = (Linear(width, inner, bias=False, rngs=rngs) for _ in range(2))
        self.down = Linear(inner, width, bias=False, rngs=rngs)
        gates = width if config.alpha_type == "vector" else 1
        self.attention_gate, self.feed_gate = (nnx.Param(jnp.zeros(gates)) for _ in range(2))

    def __call__(self, x: Float[Array, "B T D"], context: VisionContext) -> Float[Array, "B T D"]:
        """Return the new hidden states; attention leaves tokens that attend to no image unchanged."""
        y = self.norm1(x)
        q, k, v = (
            projection(of).reshape(*of.shape[:2], self.heads, -1)
            for projection, of in ((self.query, y), (self.key, context.states), (self.value, context.states))
        )
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        y = self.out(attention(q, k, v, context.visible).reshape(x.shape))
        y = jnp.where(context.visible.any(axis=-1, keepdims=True), y, jnp.zeros((), y.dtype))
        x = x + self._opened(self.attention_gate, y)
        y = self.norm2(x)
        y = self.down(ACTIVATIONS[self.act](self.gate(y)) * self.up(y))
        return x + self._opened(self.feed_gate, y)

    def _opened(self, gate: nnx.Param, y: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        return jnp.broadcast_to(jnp.tanh(gate[...]).astype(y.dtype), y.shape) * y


class GatedLlama(Llama):
    """A Llama with a stack of cross-attention blocks, one before each group of its layers."""

    def __init__(self, config: GatedConfig, *, remat: Remat, rngs: nnx.Rngs):
        super().__init__(config.llama, remat=remat, rngs=rngs)
        width, additional = config.llama.hidden_size, config.additional_vocab_size
        self.gated = config
        groups = config.llama.num_hidden_layers // config.cross_layer_interval
        self.cross = stack(groups, lambda rngs: GatedCrossAttention(config, rngs), rngs)
        self.additional_embedding = Embedding(additional, width, rngs=rngs) if additional else None
        own_head = additional and not config.llama.tie_word_embeddings
        self.additional_head = Linear(width, additional, bias=False, rngs=rngs) if own_head else None

    def embed(self, tokens: Int[Array, "B T"], dtype: DTypeLike) -> Float[Array, "B T D"]:
        """Return the embeddings of tokens, those of the additional ones included."""
        if self.additional_embedding is None:
            return self.embedding(tokens, dtype)
        behind = tokens - self.config.vocab_size
        vectors = self.embedding(jnp.minimum(tokens, self.config.vocab_size - 1), dtype)
        additional = self.additional_embedding(jnp.maximum(behind, 0), dtype)
        return jnp.where((behind >= 0)[..., None], additional, vectors)

    def cross_attend(
        self,
        x: Float[Array, "B T D"],
        positions: Int[Array, "B T"],
        mask: Masks,
        context: VisionContext,
        cache: Cache | None,
        column: Int[Array, ""] | int,
        *,
        keep_cache: bool,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        """Compute what `Llama.__call__` does, with cross-attention to `context` before each group of layers."""
        keep, size = keep_cache or cache is not None, self.gated.cross_layer_interval
        rotation = self.rotation(positions)

        def plain(layer: LlamaLayer, x: Array, cache: Entry | None) -> tuple[Array, Entry | None]:
            x, entry = layer(x, rotation, mask, cache, column)
            return x, entry if keep else None

        def group(
            layers: tuple[GatedCrossAttention, nnx.Module], x: Array, cache: Cache | None
        ) -> tuple[Array, Cache | None]:
            cross, own = layers
            return scan(own, cross(x, context), cache, call=plain, count=size, remat=self.remat)

        layers = (self.cross, grouped(self.layers, size))
        groups = self.config.num_hidden_layers // size
        cache = jax.tree.map(lambda part: part.reshape(groups, size, *part.shape[1:]), cache)
        x, entries = scan(layers, x, cache, call=group, count=groups, remat=self.remat)
        return self.norm(x), jax.tree.map(lambda part: part.reshape(-1, *part.shape[2:]), entries)

    @property
    def unembedding(self) -> Head:
        """Weights of the output head, those of the additional tokens last."""
        head = super().unembedding
        if self.additional_embedding is None:
            return head
        weights = (head.weight, Head.of(self.additional_embedding, self.additional_head).weight)
        dtype = max(
            (weight.dtype for weight in weights), key=lambda dtype: dtype.itemsize
        )  # trainable weights are float32
        whole = jnp.concatenate([weight.astype(dtype) for weight in weights], axis=head.vocabulary_axis)
        return replace(head, weight=whole)
