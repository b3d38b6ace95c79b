"""The vision transformer that families share: CLIP's (arXiv 2103.00020), with options for other towers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxguard.config import Remat
from jaxguard.models.attention import attention
from jaxguard.models.layers import ACTIVATIONS, LayerNorm, Linear, scan, stack


@dataclass(frozen=True)
class VitConfig:
    """The fields of `CLIPVisionConfig` that shape the tower, with its defaults, and options of other towers."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    image_size: int = 224
    patch_size: int = 32
    num_channels: int = 3
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    patch_bias: bool = False
    pre_norm: bool = True
    """True if there is a norm before the first block."""
    post_norm: bool = False
    """True if the norm after the last block is applied; the checkpoint holds it in either case."""
    fused: bool = False
    """True if one matrix computes query, key and value."""
    qkv_bias: bool = True
    class_token: bool = True
    registers: int = 0
    """Number of learnt tokens between the class token and the patches (arXiv 2309.16588)."""
    layer_scale: bool = False
    """True if what a block adds is scaled per channel (arXiv 2103.17239)."""

    @property
    def patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2

    @property
    def extras(self) -> int:
        """Number of tokens before the patches."""
        return self.class_token + self.registers


class VitLayer(nnx.Module):
    """One pre-norm encoder block."""

    def __init__(self, config: VitConfig, rngs: nnx.Rngs):
        width, inner = config.hidden_size, config.intermediate_size
        self.heads, self.act, self.fused = config.num_attention_heads, config.hidden_act, config.fused
        self.norm1 = LayerNorm(width, epsilon=config.layer_norm_eps)
        if config.fused:
            self.qkv = Linear(width, 3 * width, bias=config.qkv_bias, rngs=rngs)
        else:
            self.query, self.key, self.value = (Linear(width, width, bias=config.qkv_bias, rngs=rngs) for _ in range(3))
        self.out = Linear(width, width, bias=True, rngs=rngs)
        self.norm2 = LayerNorm(width, epsilon=config.layer_norm_eps)
        self.up = Linear(width, inner, bias=True, rngs=rngs)
        self.down = Linear(inner, width, bias=True, rngs=rngs)
        self.scale1, self.scale2 = (nnx.Param(jnp.ones(width)) if config.layer_scale else None for _ in range(2))

    def __call__(self, x: Float[Array, "N P D"]) -> Float[Array, "N P D"]:
        y = self.norm1(x)
        parts = jnp.split(self.qkv(y), 3, axis=-1) if self.fused else [self.query(y), self.key(y), self.value(y)]
        q, k, v = (part.reshape(*y.shape[:2], self.heads, -1) for part in parts)
        x = x + _scaled(self.out(attention(q, k, v, None).reshape(x.shape)), self.scale1)
        return x + _scaled(self.down(ACTIVATIONS[self.act](self.up(self.norm2(x)))), self.scale2)


def _scaled(y: Float[Array, "N P D"], scale: nnx.Param | None) -> Float[Array, "N P D"]:
    return y if scale is None else y * jnp.broadcast_to(scale[...].astype(y.dtype), y.shape)


class Vit(nnx.Module):
    """Vision transformer: pixels to one hidden vector for each token before the patches and for each patch."""

    def __init__(self, config: VitConfig, *, remat: Remat, rngs: nnx.Rngs):
        width = config.hidden_size
        self.config, self.remat = config, remat
        self.patch = Linear(config.num_channels * config.patch_size**2, width, bias=config.patch_bias, rngs=rngs)
        self.class_token = nnx.Param(jnp.zeros(width)) if config.class_token else None
        self.position = nnx.Param(rngs.params.normal((config.patches + config.class_token, width)) * 0.02)
        self.registers = nnx.Param(jnp.zeros((config.registers, width))) if config.registers else None
        self.norm = LayerNorm(width, epsilon=config.layer_norm_eps) if config.pre_norm else None
        self.layers = stack(config.num_hidden_layers, lambda rngs: VitLayer(config, rngs), rngs)
        self.post_norm = LayerNorm(width, epsilon=config.layer_norm_eps)

    def __call__(
        self,
        pixels: Float[Array, "N h w 3"],
        layers: Sequence[int] = (-1,),
        kept: Int[Array, "N p"] | None = None,
    ) -> Float[Array, "N P F"]:
        """Return the hidden states after the blocks `layers`, numbered as in Hugging Face's `hidden_states`.

        -1 is the last block. The states of several blocks are concatenated along the width. With `kept`, the blocks run
        on the kept patches alone, each at its own position.
        """
        count, side, size = pixels.shape[0], pixels.shape[1], self.config.patch_size
        grid = side // size
        x = pixels.reshape(count, grid, size, grid, size, -1).transpose(0, 1, 3, 2, 4, 5)
        x = self.patch(x.reshape(count, grid * grid, -1))
        position, extras = self.position[...].astype(x.dtype)[None], []
        if self.class_token is not None:
            token = jnp.broadcast_to(self.class_token[...].astype(x.dtype), (count, 1, x.shape[-1]))
            extras, position = [token + position[:, :1]], position[:, 1:]
        if self.registers is not None:
            registers = self.registers[...].astype(x.dtype)
            extras.append(jnp.broadcast_to(registers, (count, *registers.shape)))
        x = x + position
        if kept is not None:
            x = jnp.take_along_axis(x, kept[..., None], axis=1)
        x = jnp.concatenate([*extras, x], axis=1) if extras else x
        if self.norm is not None:
            x = self.norm(x)
        depths = [depth if depth >= 0 else self.config.num_hidden_layers + 1 + depth for depth in layers]
        several = len(depths) > 1

        def call(layer: VitLayer, x: Array, _: None) -> tuple[Array, Array | None]:
            y = layer(x)
            return y, y if several else None

        y, states = scan(self.layers, x, call=call, count=max(depths), remat=self.remat)
        if several:
            states = jnp.concatenate([x[None], states])
            y = jnp.concatenate([states[depth] for depth in depths], axis=-1)
        return self.post_norm(y) if self.config.post_norm else y
