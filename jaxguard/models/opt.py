"""The OPT decoder (arXiv 2205.01068), described by a Hugging Face `OPTConfig`."""

from __future__ import annotations

from dataclasses import dataclass

from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jaxguard.config import Remat
from jaxguard.models.attention import Cache, Entry, Masks, attention, remembered
from jaxguard.models.head import Head
from jaxguard.models.layers import ACTIVATIONS, Embedding, LayerNorm, Linear, scan, stack

OFFSET = 2
"""Number of unused rows at the start of OPT's position table."""


@dataclass(frozen=True)
class OptConfig:
    """The fields of `OPTConfig` that shape the decoder, with that class's defaults."""

    vocab_size: int = 50272
    hidden_size: int = 768
    num_hidden_layers: int = 12
    ffn_dim: int = 3072
    max_position_embeddings: int = 2048
    num_attention_heads: int = 12
    activation_function: str = "relu"
    do_layer_norm_before: bool = True
    enable_bias: bool = True
    layer_norm_elementwise_affine: bool = True
    tie_word_embeddings: bool = True


def _norm(config: OptConfig) -> LayerNorm:
    return LayerNorm(config.hidden_size, epsilon=1e-5, affine=config.layer_norm_elementwise_affine)


class OptLayer(nnx.Module):
    """One decoder block, with norms before attention and feed-forward or (OPT-350m) after them."""

    def __init__(self, config: OptConfig, rngs: nnx.Rngs):
        width, inner, bias = config.hidden_size, config.ffn_dim, config.enable_bias
        self.config = config
        self.norm1 = _norm(config)
        self.query, self.key, self.value, self.out = (Linear(width, width, bias=bias, rngs=rngs) for _ in range(4))
        self.norm2 = _norm(config)
        self.up = Linear(width, inner, bias=bias, rngs=rngs)
        self.down = Linear(inner, width, bias=bias, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B T D"], mask: Masks, cache: Entry | None, column: Int[Array, ""] | int
    ) -> tuple[Float[Array, "B T D"], Entry]:
        """Return the new hidden states and the layer's keys and values; a cache holds the new ones from `column` on."""
        before = self.config.do_layer_norm_before
        y = self.norm1(x) if before else x
        heads = self.config.num_attention_heads
        q, k, v = (p(y).reshape(*y.shape[:2], heads, -1) for p in (self.query, self.key, self.value))
        k, v = remembered(cache, k, v, column)
        x = x + self.out(attention(q, k, v, mask).reshape(x.shape))
        x = x if before else self.norm1(x)
        y = self.norm2(x) if before else x
        x = x + self.down(ACTIVATIONS[self.config.activation_function](self.up(y)))
        return (x if before else self.norm2(x)), (k, v)


class Opt(nnx.Module):
    """Decoder: embeddings, positions, layers, final norm and output head."""

    def __init__(self, config: OptConfig, *, remat: Remat, rngs: nnx.Rngs):
        width = config.hidden_size
        self.config, self.remat = config, remat
        self.embedding = Embedding(config.vocab_size, width, rngs=rngs)
        self.position = Embedding(config.max_position_embeddings + OFFSET, width, rngs=rngs)
        self.layers = stack(config.num_hidden_layers, lambda rngs: OptLayer(config, rngs), rngs)
        self.norm = _norm(config) if config.do_layer_norm_before else None
        tied = config.tie_word_embeddings
        self.head = None if tied else Linear(width, config.vocab_size, bias=False, rngs=rngs)

    def embed(self, tokens: Int[Array, "B T"], dtype: DTypeLike) -> Float[Array, "B T D"]:
        """Return the embeddings of tokens, without positions."""
        return self.embedding(tokens, dtype)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        positions: Int[Array, "B T"],
        mask: Masks,
        cache: Cache | None = None,
        column: Int[Array, ""] | int = 0,
        *,
        keep_cache: bool = False,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        """Return hidden states after the final norm, and keys and values if `cache` or `keep_cache` is given."""
        keep = keep_cache or cache is not None

        def call(layer: OptLayer, x: Array, cache: Entry | None) -> tuple[Array, Entry | None]:
            x, entry = layer(x, mask, cache, column)
            return x, entry if keep else None

        x = x + self.position(positions + OFFSET, x.dtype)
        count = self.config.num_hidden_layers
        x, entries = scan(self.layers, x, cache, call=call, count=count, remat=self.remat)
        return (x if self.norm is None else self.norm(x)), entries

    def logits(self, hidden: Float[Array, "*N D"]) -> Float[Array, "*N V"]:
        """Compute next-token logits in float32."""
        return self.unembedding.logits(hidden)

    @property
    def unembedding(self) -> Head:
        """Weights of the output head."""
        return Head.of(self.embedding, self.head)
