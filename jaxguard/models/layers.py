"""Building blocks that towers and decoders share, and how layers are stacked and scanned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jaxguard.config import Remat
from jaxguard.models.placement import rows

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_python": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_10": lambda x: jnp.clip(jax.nn.gelu(x, approximate=False), -10, 10),
    **dict.fromkeys(
        ("gelu_pytorch_tanh", "gelu_python_tanh", "gelu_new", "gelu_fast", "gelu_accurate"),
        lambda x: jax.nn.gelu(x, approximate=True),
    ),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
}
"""Activation functions by their names in Hugging Face configs."""
UNROLLED = 4
"""Largest number of layers of a stack that is unrolled. A loop copies its residuals into an array of all layers and out
again, which takes a sixth of the time of a small model's step on CPUs (docs/speed.md)."""


class Lora(nnx.Module):
    """Low-rank adapter of a linear layer: x -> x A B alpha / rank, zero at first (arXiv 2106.09685)."""

    def __init__(self, kernel: tuple[int, ...], *, rank: int, alpha: float, dropout: float, rngs: nnx.Rngs):
        """Create it for a kernel of shape [..., inputs, outputs]; leading axes are those of a stack of layers."""
        *stack, inputs, outputs = kernel
        bound = inputs**-0.5
        self.a = nnx.Param(jax.random.uniform(rngs.params(), (*stack, inputs, rank), minval=-bound, maxval=bound))
        self.b = nnx.Param(jnp.zeros((*stack, rank, outputs)))
        self.scale, self.dropout = alpha / rank, dropout
        self.key: nnx.Variable | None = nnx.data(None)
        """Key of the dropout; None disables it."""

    def __call__(self, x: Float[Array, "*N D_in"]) -> Float[Array, "*N D_out"]:
        if self.key is not None:
            kept = jax.random.bernoulli(self.key[...], 1 - self.dropout, x.shape)
            x = jnp.where(kept, x / (1 - self.dropout), jnp.zeros((), x.dtype))
        return (x @ self.a[...].astype(x.dtype)) @ self.b[...].astype(x.dtype) * self.scale


class Linear(nnx.Module):
    """y = x W + b with W of shape [inputs, outputs], computed in the type of x; an adapter's output is added."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool, rngs: nnx.Rngs):
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (inputs, outputs)) * inputs**-0.5)
        self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None
        self.lora: Lora | None = nnx.data(None)

    def __call__(self, x: Float[Array, "*N D_in"]) -> Float[Array, "*N D_out"]:
        y = x @ self.kernel[...].astype(x.dtype)
        if self.lora is not None:
            y = y + self.lora(x)
        return y if self.bias is None else y + jnp.broadcast_to(self.bias[...].astype(x.dtype), y.shape)


class LayerNorm(nnx.Module):
    """Normalisation to zero mean and unit variance over the last axis, in float32."""

    def __init__(self, width: int, *, epsilon: float, affine: bool = True):
        self.scale = nnx.Param(jnp.ones(width)) if affine else None
        self.bias = nnx.Param(jnp.zeros(width)) if affine else None
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "*N D"]) -> Float[Array, "*N D"]:
        y = x.astype(jnp.float32)
        y = y - y.mean(-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + self.epsilon)
        if self.scale is None or self.bias is None:
            return y.astype(x.dtype)
        scale, bias = (jnp.broadcast_to(p[...].astype(jnp.float32), y.shape) for p in (self.scale, self.bias))
        return (y * scale + bias).astype(x.dtype)


class RMSNorm(nnx.Module):
    """Division by the root mean square over the last axis, in float32."""

    def __init__(self, width: int, *, epsilon: float):
        self.scale = nnx.Param(jnp.ones(width))
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "*N D"]) -> Float[Array, "*N D"]:
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + self.epsilon)
        return y.astype(x.dtype) * jnp.broadcast_to(self.scale[...].astype(x.dtype), y.shape)


class Embedding(nnx.Module):
    """A table of token vectors, which can also serve as a tied output head (`head.Head`)."""

    def __init__(self, tokens: int, width: int, *, rngs: nnx.Rngs):
        self.table = nnx.Param(jax.random.normal(rngs.params(), (tokens, width)) * 0.02)

    def __call__(self, tokens: Int[Array, "*N"], dtype: DTypeLike) -> Float[Array, "*N D"]:
        return self.table[...].astype(dtype)[tokens]


_SAVED = {"dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "full": None}
"""What the forward pass saves of a layer besides its input; attention's matmuls have batch dimensions."""


def stack(count: int, make: Callable[[nnx.Rngs], nnx.Module], rngs: nnx.Rngs) -> nnx.Module:
    """Build `count` layers as one module whose parameters have a leading layer axis."""
    return nnx.split_rngs(splits=count)(nnx.vmap(make, in_axes=0, out_axes=0))(rngs)


def grouped(layers: nnx.Module, size: int) -> nnx.Module:
    """Reshape a stack of L layers to a stack of L / size stacks of `size`, for a scan in two levels."""
    graph, parameters = nnx.split(layers)
    return nnx.merge(graph, jax.tree.map(lambda leaf: leaf.reshape(-1, size, *leaf.shape[1:]), parameters))


def scan(layers: Any, carry: Array, xs: Any = None, *, call: Callable, count: int, remat: Remat) -> tuple[Array, Any]:
    """Apply the first `count` layers of a stack (or of a tuple of stacks): `carry, y = call(layer, carry, x)`.

    Returns the last carry and the stacked ys. `remat` is what the backward pass recomputes of each layer.
    """
    graph, parameters = nnx.split(layers)
    parameters = jax.tree.map(lambda leaf: leaf[:count], parameters)

    def body(carry: Array, inputs: tuple[Any, Any]) -> tuple[Array, Any]:
        layer, x = inputs
        carry, y = call(nnx.merge(graph, layer), rows(carry), x)
        return rows(carry), y

    if remat != "none":
        body = jax.checkpoint(body, policy=_SAVED[remat])
    return jax.lax.scan(body, carry, (parameters, xs), length=count, unroll=count <= UNROLLED)
