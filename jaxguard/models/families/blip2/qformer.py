"""BLIP-2's querying transformer (arXiv 2301.12597), described by a Hugging Face `Blip2QFormerConfig`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxguard.config import Remat
from jaxguard.models.attention import attention
from jaxguard.models.layers import ACTIVATIONS, LayerNorm, Linear, grouped, scan, stack


@dataclass(frozen=True)
class QFormerConfig:
    """The fields of `Blip2QFormerConfig` that shape the module, with that class's defaults."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    cross_attention_frequency: int = 2
    """Period of the layers in which the queries attend to the image, the first layer included."""
    encoder_hidden_size: int = 1408


class PostNormAttention(nnx.Module):
    """Attention from x to a context, added to x and then normalised (BERT's order)."""

    def __init__(self, config: QFormerConfig, context: int, rngs: nnx.Rngs):
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.query = Linear(width, width, bias=True, rngs=rngs)
        self.key, self.value = (Linear(context, width, bias=True, rngs=rngs) for _ in range(2))
        self.out = Linear(width, width, bias=True, rngs=rngs)
        self.norm = LayerNorm(width, epsilon=config.layer_norm_eps)

    def __call__(self, x: Float[Array, "N Q D"], context: Float[Array, "N P F"]) -> Float[Array, "N Q D"]:
        q, k, v = (
            projection(of).reshape(*of.shape[:2], self.heads, -1)
            for projection, of in ((self.query, x), (self.key, context), (self.value, context))
        )
        return self.norm(x + self.out(attention(q, k, v, None).reshape(x.shape)))


class FeedForward(nnx.Module):
    """A two-layer feed-forward, added to its input and then normalised."""

    def __init__(self, config: QFormerConfig, rngs: nnx.Rngs):
        self.act = config.hidden_act
        self.up = Linear(config.hidden_size, config.intermediate_size, bias=True, rngs=rngs)
        self.down = Linear(config.intermediate_size, config.hidden_size, bias=True, rngs=rngs)
        self.norm = LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps)

    def __call__(self, x: Float[Array, "N Q D"]) -> Float[Array, "N Q D"]:
        return self.norm(x + self.down(ACTIVATIONS[self.act](self.up(x))))


class QFormerLayer(nnx.Module):
    """Self-attention and feed-forward of a layer; `QFormer.cross` holds the cross-attention of each group's first."""

    def __init__(self, config: QFormerConfig, rngs: nnx.Rngs):
        self.attention = PostNormAttention(config, config.hidden_size, rngs)
        self.feed = FeedForward(config, rngs)


class QFormer(nnx.Module):
    """Any number of image vectors to one vector per learnt query."""

    def __init__(self, config: QFormerConfig, *, queries: int, remat: Remat, rngs: nnx.Rngs):
        groups = config.num_hidden_layers // config.cross_attention_frequency
        self.config, self.remat = config, remat
        self.queries = nnx.Param(rngs.params.normal((queries, config.hidden_size)) * 0.02)
        self.norm = LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps)
        self.layers = stack(config.num_hidden_layers, lambda rngs: QFormerLayer(config, rngs), rngs)
        self.cross = stack(groups, lambda rngs: PostNormAttention(config, config.encoder_hidden_size, rngs), rngs)

    def __call__(self, image: Float[Array, "N P F"]) -> Float[Array, "N Q D"]:
        """Compute in float32 throughout, as BLIP-2 does."""
        image = image.astype(jnp.float32)
        x = self.norm(self.queries[...].astype(jnp.float32))
        x = jnp.broadcast_to(x[None], (image.shape[0], *x.shape))

        def plain(layer: QFormerLayer, x: Array, _: None) -> tuple[Array, None]:
            return layer.feed(layer.attention(x, x)), None

        def group(layers: tuple[PostNormAttention, nnx.Module], x: Array, _: None) -> tuple[Array, None]:
            cross, own = layers
            first, rest = _first_and_rest(own)
            x = first.feed(cross(first.attention(x, x), image))
            return scan(rest, x, call=plain, count=size - 1, remat="none")

        size = self.config.cross_attention_frequency
        layers = (self.cross, grouped(self.layers, size))
        groups = self.config.num_hidden_layers // size
        return scan(layers, x, call=group, count=groups, remat=self.remat)[0]


def _first_and_rest(layers: nnx.Module) -> tuple[Any, Any]:
    graph, parameters = nnx.split(layers)
    first, rest = (jax.tree.map(lambda leaf, place=place: leaf[place], parameters) for place in (0, slice(1, None)))
    return nnx.merge(graph, first), nnx.merge(graph, rest)
