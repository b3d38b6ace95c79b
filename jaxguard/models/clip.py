"""The CLIP vision tower (arXiv 2103.00020), described by a Hugging Face `CLIPVisionConfig`."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxguard.models.attention import attention
from jaxguard.models.layers import ACTIVATIONS, LayerNorm, Linear, scan, stack


@dataclass(frozen=True)
class ClipConfig:
    """The fields of `CLIPVisionConfig` that shape the tower, with that class's defaults."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    image_size: int = 224
    patch_size: int = 32
    num_channels: int = 3
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5

    @property
    def patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2


class ClipLayer(nnx.Module):
    """One pre-norm encoder block."""

    def __init__(self, config: ClipConfig, rngs: nnx.Rngs):
        width, inner = config.hidden_size, config.intermediate_size
        self.heads, self.act = config.num_attention_heads, config.hidden_act
        self.norm1 = LayerNorm(width, epsilon=config.layer_norm_eps)
        self.query, self.key, self.value, self.out = (Linear(width, width, bias=True, rngs=rngs) for _ in range(4))
        self.norm2 = LayerNorm(width, epsilon=config.layer_norm_eps)
        self.up = Linear(width, inner, bias=True, rngs=rngs)
        self.down = Linear(inner, width, bias=True, rngs=rngs)

    def __call__(self, x: Float[Array, "N P D"]) -> Float[Array, "N P D"]:
        y = self.norm1(x)
        q, k, v = (p(y).reshape(*y.shape[:2], self.heads, -1) for p in (self.query, self.key, self.value))
        x = x + self.out(attention(q, k, v, None).reshape(x.shape))
        return x + self.down(ACTIVATIONS[self.act](self.up(self.norm2(x))))


class ClipTower(nnx.Module):
    """Pixels to one hidden vector for the class token and for each patch."""

    def __init__(self, config: ClipConfig, *, remat: bool, rngs: nnx.Rngs):
        width = config.hidden_size
        self.config, self.remat = config, remat
        self.patch = Linear(config.num_channels * config.patch_size**2, width, bias=False, rngs=rngs)
        self.class_token = nnx.Param(jnp.zeros(width))
        self.position = nnx.Param(rngs.params.normal((config.patches + 1, width)) * 0.02)
        self.norm = LayerNorm(width, epsilon=config.layer_norm_eps)
        self.layers = stack(config.num_hidden_layers, lambda rngs: ClipLayer(config, rngs), rngs)
        self.post_norm = LayerNorm(width, epsilon=config.layer_norm_eps)

    def __call__(
        self, pixels: Float[Array, "N S S 3"], layer: int, kept: Int[Array, "N K"] | None = None
    ) -> Float[Array, "N K+1 D"]:
        """Hidden states after `layer` blocks, counted as Hugging Face counts `hidden_states` (-1 is the last).

        Where `kept` says which patches a view keeps, the blocks run on these alone, each at its own position.
        """
        count, side, size = pixels.shape[0], pixels.shape[1], self.config.patch_size
        grid = side // size
        x = pixels.reshape(count, grid, size, grid, size, -1).transpose(0, 1, 3, 2, 4, 5)
        x = self.patch(x.reshape(count, grid * grid, -1))
        token = jnp.broadcast_to(self.class_token[...].astype(x.dtype), (count, 1, x.shape[-1]))
        x = jnp.concatenate([token, x], axis=1) + self.position[...].astype(x.dtype)[None]
        if kept is not None:
            x = jnp.concatenate([x[:, :1], jnp.take_along_axis(x[:, 1:], kept[..., None], axis=1)], axis=1)
        depth = layer if layer >= 0 else self.config.num_hidden_layers + 1 + layer
        x, _ = scan(self.layers, self.norm(x), call=lambda layer, x, _: (layer(x), None), count=depth, remat=self.remat)
        return x
