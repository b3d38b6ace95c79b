"""The Llama decoder (arXiv 2302.13971), described by a Hugging Face `LlamaConfig`."""

from __future__ import annotations

from dataclasses import dataclass, field

from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jaxguard.config import Remat
from jaxguard.models.attention import Cache, Entry, Masks, attention, remembered
from jaxguard.models.head import Head
from jaxguard.models.layers import ACTIVATIONS, Embedding, Linear, RMSNorm, scan, stack
from jaxguard.models.rope import Rope, rotate

Rotation = tuple[Float[Array, "B T 1 half"], ...]


@dataclass(frozen=True)
class LlamaConfig:
    """The fields of `LlamaConfig` that shape the decoder, with that class's defaults, and one of Qwen2."""

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    rope: Rope = field(default_factory=Rope)
    attention_bias: bool = False
    out_bias: bool | None = None
    """True if attention's output has a bias; None: as its other matrices."""
    mlp_bias: bool = False
    tie_word_embeddings: bool = False

    @property
    def groups(self) -> int:
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def depth(self) -> int:
        """Width of one attention head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads


class LlamaLayer(nnx.Module):
    """One pre-norm decoder block with grouped-query rotary attention and a gated feed-forward."""

    def __init__(self, config: LlamaConfig, rngs: nnx.Rngs):
        width, inner, depth = config.hidden_size, config.intermediate_size, config.depth
        self.config = config
        self.norm1 = RMSNorm(width, epsilon=config.rms_norm_eps)
        bias = config.attention_bias
        self.query = Linear(width, config.num_attention_heads * depth, bias=bias, rngs=rngs)
        self.key = Linear(width, config.groups * depth, bias=bias, rngs=rngs)
        self.value = Linear(width, config.groups * depth, bias=bias, rngs=rngs)
        out_bias = bias if config.out_bias is None else config.out_bias
        self.out = Linear(config.num_attention_heads * depth, width, bias=out_bias, rngs=rngs)
        self.norm2 = RMSNorm(width, epsilon=config.rms_norm_eps)
        self.gate = Linear(width, inner, bias=config.mlp_bias, rngs=rngs)
        self.up = Linear(width, inner, bias=config.mlp_bias, rngs=rngs)
        self.down = Linear(inner, width, bias=config.mlp_bias, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        rotation: Rotation,
        mask: Masks,
        cache: Entry | None,
        column: Int[Array, ""] | int,
    ) -> tuple[Float[Array, "B T D"], Entry]:
        """Return the new hidden states and the layer's keys and values; a cache holds the new ones from `column` on."""
        y = self.norm1(x)
        q, k, v = (p(y).reshape(*y.shape[:2], -1, self.config.depth) for p in (self.query, self.key, self.value))
        q, k = rotate(q, rotation), rotate(k, rotation)
        k, v = remembered(cache, k, v, column)
        x = x + self.out(attention(q, k, v, mask).reshape(*x.shape[:2], -1))
        y = self.norm2(x)
        return x + self.down(ACTIVATIONS[self.config.hidden_act](self.gate(y)) * self.up(y)), (k, v)


class Llama(nnx.Module):
    """Decoder: embeddings, layers, final norm and output head."""

    def __init__(self, config: LlamaConfig, *, remat: Remat, rngs: nnx.Rngs):
        self.config, self.remat = config, remat
        self.embedding = Embedding(config.vocab_size, config.hidden_size, rngs=rngs)
        self.layers = stack(config.num_hidden_layers, lambda rngs: LlamaLayer(config, rngs), rngs)
        self.norm = RMSNorm(config.hidden_size, epsilon=config.rms_norm_eps)
        tied = config.tie_word_embeddings
        self.head = None if tied else Linear(config.hidden_size, config.vocab_size, bias=False, rngs=rngs)

    def embed(self, tokens: Int[Array, "B T"], dtype: DTypeLike) -> Float[Array, "B T D"]:
        """Return the embeddings of tokens."""
        return self.embedding(tokens, dtype)

    def rotation(self, positions: Int[Array, "B T"]) -> Rotation:
        """Compute the rotary embedding of each position."""
        return self.config.rope.rotation(positions, self.config.depth)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        positions: Int[Array, "B T *axes"],
        mask: Masks,
        cache: Cache | None = None,
        column: Int[Array, ""] | int = 0,
        *,
        keep_cache: bool = False,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        """Return hidden states after the final norm, and keys and values if `cache` or `keep_cache` is given."""
        keep = keep_cache or cache is not None

        rotation = self.rotation(positions)

        def call(layer: LlamaLayer, x: Array, cache: Entry | None) -> tuple[Array, Entry | None]:
            x, entry = layer(x, rotation, mask, cache, column)
            return x, entry if keep else None

        count = self.config.num_hidden_layers
        x, entries = scan(self.layers, x, cache, call=call, count=count, remat=self.remat)
        return self.norm(x), entries

    def logits(self, hidden: Float[Array, "*N D"]) -> Float[Array, "*N V"]:
        """Compute next-token logits in float32."""
        return self.unembedding.logits(hidden)

    @property
    def unembedding(self) -> Head:
        """Weights of the output head."""
        return Head.of(self.embedding, self.head)
