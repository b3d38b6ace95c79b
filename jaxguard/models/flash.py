"""Fused attention kernels of accelerators: scores are never stored, and masked blocks are not computed."""

from __future__ import annotations

from functools import partial
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jaxtyping import Array, Float

from jaxguard.models import placement

LANES = 128
"""Splash attention requires lengths that are multiples of this."""
BLOCK = 1024
"""Largest number of tokens of a block of scores."""


@runtime_checkable
class Kernel(Protocol):
    """Self-attention in which every token attends to all tokens (or, if `causal`, to itself and all before it)."""

    def __call__(
        self,
        query: Float[Array, "B T H K"],
        key: Float[Array, "B T G K"],
        value: Float[Array, "B T G K"],
        *,
        causal: bool,
    ) -> Float[Array, "B T H K"]: ...


def choose(query: Float[Array, "B T H K"], key: Float[Array, "B S G K"], platform: str) -> Kernel | None:
    """Return the platform's kernel, or None if it does not support these inputs."""
    depth, own = query.shape[-1], query.shape[1] == key.shape[1]
    if platform == "gpu" and query.dtype in (jnp.bfloat16, jnp.float16) and depth % 8 == 0 and depth <= 128:
        return cudnn
    if platform == "tpu" and own and query.shape[1] >= LANES:
        return splash
    return None


def cudnn(
    query: Float[Array, "B T H K"],
    key: Float[Array, "B S G K"],
    value: Float[Array, "B S G K"],
    *,
    causal: bool,
) -> Float[Array, "B T H K"]:
    """Compute attention with cuDNN: on all GPUs it supports half precision and heads up to 128, in multiples of 8."""
    return jax.nn.dot_product_attention(query, key, value, is_causal=causal, implementation="cudnn")


def splash(
    query: Float[Array, "B T H K"],
    key: Float[Array, "B T G K"],
    value: Float[Array, "B T G K"],
    *,
    causal: bool,
    interpret: bool = False,
) -> Float[Array, "B T H K"]:
    """Compute attention with JAX's splash attention, padded to a length that the kernel accepts.

    Each device computes its own rows and heads.

    Args:
        interpret: run the kernel in interpreter mode, on any device, for tests.
    """
    length, depth = query.shape[1], query.shape[-1]
    padded = -(-length // LANES) * LANES
    block = max(size for size in range(LANES, BLOCK + 1, LANES) if padded % size == 0)
    blocks = kernels.BlockSizes(
        block_q=block, block_kv=block, block_q_dkv=block, block_kv_dkv=block, block_q_dq=block, block_kv_dq=block
    )
    mask = (masks.CausalMask if causal else masks.FullMask)((padded, padded))
    segments = None
    if not causal and padded > length:  # a causal mask already hides padding on the right
        behind = (jnp.arange(padded) >= length).astype(jnp.int32)
        segments = kernels.SegmentIds(behind, behind)

    def local(query: Array, key: Array, value: Array) -> Array:
        laid = (
            jnp.pad(x, ((0, 0), (0, padded - length), (0, 0), (0, 0))).swapaxes(1, 2)
            for x in (query * depth**-0.5, key, value)
        )
        heads = masks.MultiHeadMask([mask] * query.shape[2])
        kernel = kernels.make_splash_mha(heads, block_sizes=blocks, head_shards=1, q_seq_shards=1, interpret=interpret)
        return jax.vmap(partial(kernel, segment_ids=segments))(*laid).swapaxes(1, 2)[:, :length]

    place = placement.current()
    if place is None or place.rows.mesh.size == 1:
        return local(query, key, value)
    spec = place.split(query.shape[2], key.shape[2]).spec
    return jax.shard_map(local, mesh=place.rows.mesh, in_specs=(spec,) * 3, out_specs=spec, check_vma=False)(
        query, key, value
    )
