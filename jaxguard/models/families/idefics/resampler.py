"""The perceiver resampler of Flamingo (arXiv 2204.14198), described by a Hugging Face `IdeficsPerceiverConfig`."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxguard.config import Remat
from jaxguard.models.attention import attention
from jaxguard.models.layers import LayerNorm, Linear, scan, stack

EPSILON = 1e-5


@dataclass(frozen=True)
class ResamplerConfig:
    """The fields of `IdeficsPerceiverConfig`, with that class's defaults; `width` is the vision tower's."""

    width: int = 768
    resampler_n_latents: int = 64
    resampler_depth: int = 6
    resampler_n_heads: int = 16
    resampler_head_dim: int = 96
    qk_layer_norms_perceiver: bool = False


class ResamplerLayer(nnx.Module):
    """Attention from the latents to the image and to themselves, then a feed-forward; linear layers have no bias."""

    def __init__(self, config: ResamplerConfig, rngs: nnx.Rngs):
        width, inner, depth = config.width, 4 * config.width, config.resampler_head_dim
        self.heads = config.resampler_n_heads
        self.context_norm, self.latent_norm, self.feed_norm = (LayerNorm(width, epsilon=EPSILON) for _ in range(3))
        self.query, self.key, self.value = (Linear(width, self.heads * depth, bias=False, rngs=rngs) for _ in range(3))
        self.out = Linear(self.heads * depth, width, bias=False, rngs=rngs)
        self.query_norm, self.key_norm = (
            LayerNorm(depth, epsilon=EPSILON) if config.qk_layer_norms_perceiver else None for _ in range(2)
        )
        self.up = Linear(width, inner, bias=False, rngs=rngs)
        self.down = Linear(inner, width, bias=False, rngs=rngs)

    def __call__(self, latents: Float[Array, "N Q D"], context: Float[Array, "N P D"]) -> Float[Array, "N Q D"]:
        x = self.latent_norm(latents)
        seen = jnp.concatenate([self.context_norm(context), x], axis=1)
        q, k, v = (
            projection(of).reshape(*of.shape[:2], self.heads, -1)
            for projection, of in ((self.query, x), (self.key, seen), (self.value, seen))
        )
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        latents = latents + self.out(attention(q, k, v, None).reshape(*x.shape[:2], -1))
        return latents + self.down(jax.nn.relu(self.up(self.feed_norm(latents))))


class Resampler(nnx.Module):
    """Any number of image vectors to a fixed number of latents."""

    def __init__(self, config: ResamplerConfig, *, remat: Remat, rngs: nnx.Rngs):
        self.config, self.remat = config, remat
        self.latents = nnx.Param(rngs.params.normal((config.resampler_n_latents, config.width)))
        self.layers = stack(config.resampler_depth, lambda rngs: ResamplerLayer(config, rngs), rngs)
        self.norm = LayerNorm(config.width, epsilon=EPSILON)

    def __call__(self, image: Float[Array, "N P D"]) -> Float[Array, "N Q D"]:
        latents = self.latents[...].astype(image.dtype)
        latents = jnp.broadcast_to(latents[None], (image.shape[0], *latents.shape))

        def call(layer: ResamplerLayer, x: Array, _: None) -> tuple[Array, None]:
            return layer(x, image), None

        count = self.config.resampler_depth
        return self.norm(scan(self.layers, latents, call=call, count=count, remat=self.remat)[0])
