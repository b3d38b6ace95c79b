"""The token statistics straight from hidden states, without ever holding [tokens, vocabulary].

Logits are computed for one chunk of tokens at a time, both views in one matmul, and reduced at once to the six numbers.
The backward pass computes them again and applies the closed forms of the derivatives. Cotangents are per token, so
any loss or gate is a plain function of the result. `jaxguard.objective.statistics` is the reference version.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PyTree

from jaxguard.models.head import Head
from jaxguard.objective.statistics import PairStatistics, TokenStatistics

REFERENCE_BYTES = 256 * 2**20
"""Bytes of float32 logits up to which an accelerator takes the reference version: nothing is computed twice."""
REFERENCE_TEMPORARIES = 4.5
"""What the reference version's value and gradient hold at once, in units of those bytes (XLA's memory analysis)."""
CHUNK_BYTES = 64 * 2**20
"""Float32 logits of one chunk, all views together."""
CHUNK_TOKENS = 128
"""Least number of tokens of a chunk, whatever the vocabulary: a smaller matmul waits for the head's weights."""

Views = tuple[Float[Array, "*N D"], ...]


@dataclasses.dataclass(frozen=True)
class Split:
    """How tokens and vocabulary are split over a mesh. Built by `train.sharding`, like everything that names mesh axes.

    Attributes:
        mesh: the devices.
        rows: partition spec of arrays whose first axis is the batch.
        head: partition specs of the head's arrays, in a tree like the head.
        row_axes: mesh axes that the batch is split over.
        vocabulary_axis: the mesh axis that the vocabulary is split over; None does not split it.
    """

    mesh: Mesh
    rows: Any
    head: PyTree
    row_axes: tuple[str, ...]
    vocabulary_axis: str | None


def reference_fits(tokens: int, views: int, vocabulary: int, devices: Sequence[jax.Device]) -> bool:
    """The rule by which the reference version is chosen.

    On accelerators, where the head is a small part of a step and memory is scarce: if its logits take at most
    `REFERENCE_BYTES` on each device. On CPUs, where the second matmul of the fused version costs a third to a half more
    time: if all that it holds takes at most half of the host's memory.
    """
    each = 4 * tokens * views * vocabulary / len(devices)
    if devices[0].platform != "cpu":
        return reference_fits_accelerators(tokens, views, vocabulary, len(devices))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return REFERENCE_TEMPORARIES * each * jax.local_device_count() <= memory / 2


def reference_fits_accelerators(tokens: int, views: int, vocabulary: int, devices: int) -> bool:
    """The rule for a number of accelerators."""
    return 4 * tokens * views * vocabulary / devices <= REFERENCE_BYTES


def token_statistics(
    hidden: Float[Array, "*N D"], head: Head, targets: Int[Array, "*N"], split: Split | None = None
) -> TokenStatistics:
    """NLL and entropy of one view; as `pair_statistics`."""
    return _statistics(split, (hidden,), head, targets)


def pair_statistics(
    hidden_p: Float[Array, "*N D"],
    hidden_q: Float[Array, "*N D"],
    head: Head,
    targets: Int[Array, "*N"],
    split: Split | None = None,
) -> PairStatistics:
    """All six statistics from both views' hidden states, in float32 nats.

    Differentiable in the hidden states and the head; a head that is not differentiated costs no gradient buffer.

    Args:
        hidden_p: of the original view.
        hidden_q: of the perturbed view, at the same tokens.
        head: the output head.
        targets: the tokens that should follow.
        split: over a mesh, the placement of rows (the first axis of `targets`) and of the vocabulary; each device then
            works on its own tokens and vocabulary, and maxima, then sums, are combined over the vocabulary's shards.
    """
    statistics = _statistics(split, (hidden_p, hidden_q), head, targets)
    assert isinstance(statistics, PairStatistics)
    return statistics


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _statistics(split: Split | None, views: Views, head: Head, targets: Array) -> TokenStatistics:
    return _forward(split, views, head, targets)[0]


@flax.struct.dataclass
class _Residuals:
    views: Views
    head: Head
    targets: Array
    statistics: TokenStatistics
    normaliser: Array
    trains_head: bool = flax.struct.field(pytree_node=False)


def _forward_rule(split: Split | None, views: Any, head: Any, targets: Any) -> tuple[TokenStatistics, _Residuals]:
    trains_head = any(leaf.perturbed for leaf in jax.tree.leaves(head))
    views, head, targets = jax.tree.map(lambda leaf: leaf.value, (views, head, targets))
    statistics, normaliser = _forward(split, views, head, targets)
    return statistics, _Residuals(views, head, targets, statistics, normaliser, trains_head)


def _backward_rule(split: Split | None, residuals: _Residuals, cotangents: Any) -> tuple[Views, Head | None, None]:
    def dense(leaf: Any) -> Array:
        shape: Any = leaf.aval if isinstance(leaf, SymbolicZero) else None
        return leaf if shape is None else jnp.zeros(shape.shape, shape.dtype)

    cotangents = jax.tree.map(dense, cotangents, is_leaf=lambda leaf: isinstance(leaf, SymbolicZero))
    body: Callable = functools.partial(_local_backward, split, residuals.trains_head)
    if split is not None:
        inputs = (split.rows, split.head, *(split.rows,) * 4)
        body = _mapped(split, body, inputs, (split.rows, split.head if residuals.trains_head else None))
    given = (residuals.views, residuals.head, residuals.targets, residuals.statistics, residuals.normaliser)
    return (*body(*given, cotangents), None)


_statistics.defvjp(_forward_rule, _backward_rule, symbolic_zeros=True)


def _mapped(split: Split, body: Callable, inputs: Any, outputs: Any) -> Callable:
    return jax.shard_map(body, mesh=split.mesh, in_specs=inputs, out_specs=outputs, check_vma=False)


def _forward(split: Split | None, views: Views, head: Head, targets: Array) -> tuple[TokenStatistics, Array]:
    body: Callable = functools.partial(_local_forward, split)
    if split is not None:
        body = _mapped(split, body, (split.rows, split.head, split.rows), split.rows)
    return body(views, head, targets)


def _local_forward(split: Split | None, views: Views, head: Head, targets: Array) -> tuple[TokenStatistics, Array]:
    """Statistics [*N], and each token's maximum and log-sum per view [*N, 2 views]."""
    shape, axis = targets.shape, split.vocabulary_axis if split else None
    head = dataclasses.replace(head, weight=head.weight.astype(views[0].dtype))
    cut = _Chunks.of(targets.size, len(views), head.vocabulary)

    def body(_: None, chunk: tuple[Array, Array]) -> tuple[None, tuple[TokenStatistics, Array]]:
        hidden_WCD, targets_C = chunk
        return None, _chunk_statistics(head.logits(hidden_WCD), targets_C, axis)

    _, results = jax.lax.scan(body, None, (cut.views(views), cut.cut(targets.reshape(-1))))
    return jax.tree.map(lambda leaf: cut.join(leaf).reshape(*shape, *leaf.shape[2:]), results)


def _chunk_statistics(z_WCV: Array, targets: Array, axis: str | None) -> tuple[TokenStatistics, Array]:
    greatest = _over(jax.lax.pmax, z_WCV.max(-1), axis)
    z_WCV -= greatest[..., None]
    weight_WCV = jnp.exp(z_WCV)
    local, ours = _local_targets(targets, z_WCV.shape[-1], axis)
    picked = jnp.take_along_axis(z_WCV, jnp.broadcast_to(local[None, :, None], (*z_WCV.shape[:2], 1)), -1)[..., 0]
    sums = [weight_WCV.sum(-1), jnp.sum(weight_WCV * z_WCV, -1), jnp.where(ours[None], picked, 0.0)]
    if len(z_WCV) == 2:
        # View by view: XLA sums the broadcast product term by term on some CPUs, 400 times less exactly.
        difference_CV = z_WCV[0] - z_WCV[1]
        sums.append(jnp.stack([jnp.sum(weight_CV * difference_CV, -1) for weight_CV in weight_WCV]))
    total, weighted, picked, *difference = _over(jax.lax.psum, jnp.stack(sums), axis)
    log_sum = jnp.log(total)
    nll, entropy = log_sum - picked, log_sum - weighted / total
    normaliser = jnp.concatenate([greatest, log_sum]).T
    if not difference:
        return TokenStatistics(nll_p=nll[0], entropy_p=entropy[0]), normaliser
    expected, shift = difference[0] / total, log_sum[0] - log_sum[1]
    statistics = PairStatistics(
        nll_p=nll[0],
        nll_q=nll[1],
        kl_pq=expected[0] - shift,
        kl_qp=shift - expected[1],
        entropy_p=entropy[0],
        entropy_q=entropy[1],
    )
    return statistics, normaliser


def _local_backward(
    split: Split | None,
    trains_head: bool,
    views: Views,
    stored: Head,
    targets: Array,
    statistics: TokenStatistics,
    normaliser: Array,
    cotangents: TokenStatistics,
) -> tuple[Views, Any]:
    shape, dtype, axis = targets.shape, views[0].dtype, split.vocabulary_axis if split else None
    head = dataclasses.replace(stored, weight=stored.weight.astype(dtype))
    cut = _Chunks.of(targets.size, len(views), head.vocabulary)

    def body(total: Head | None, chunk: Any) -> tuple[Head | None, Array]:
        hidden_WCD, targets, statistics, given, normaliser = chunk
        z_WCV = head.logits(hidden_WCD)
        d_WCV = _logit_cotangents(z_WCV, targets, statistics, given, normaliser, axis)
        if head.cap is not None:
            d_WCV *= 1.0 - jnp.square(z_WCV / head.cap)
        d_WCV *= head.scale
        flat, hidden = d_WCV.reshape(-1, d_WCV.shape[-1]).astype(dtype), hidden_WCD.reshape(-1, hidden_WCD.shape[-1])
        if total is not None:
            first, second = (hidden, flat) if head.vocabulary_axis else (flat, hidden)
            total = dataclasses.replace(
                total,
                weight=total.weight + _product(first, second, 0, 0),
                bias=None if total.bias is None else total.bias + d_WCV.sum((0, 1)),
            )
        return total, _product(flat, head.weight, 1, head.vocabulary_axis).reshape(hidden_WCD.shape)

    total = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), stored) if trains_head else None
    flat = (targets, statistics, cotangents, normaliser)
    chunks = jax.tree.map(lambda leaf: cut.cut(leaf.reshape(-1, *leaf.shape[len(shape) :])), flat)
    total, gradients = jax.lax.scan(body, total, (cut.views(views), *chunks))
    joined = _over(jax.lax.psum, jnp.moveaxis(cut.join(jnp.swapaxes(gradients, 1, 2)), 1, 0), axis)
    if total is not None:
        total = jax.tree.map(
            lambda leaf, of: _over(jax.lax.psum, leaf, split.row_axes if split else None).astype(of.dtype),
            total,
            stored,
        )
    return tuple(view.reshape(*shape, -1).astype(dtype) for view in joined), total


def _logit_cotangents(
    z_WCV: Array, targets: Array, statistics: Any, given: Any, normaliser: Array, axis: str | None
) -> Array:
    """The closed forms of the derivatives by the logits, weighted by each statistic's cotangent."""
    greatest, log_sum = jnp.split(normaliser.T, 2)
    log_WCV = z_WCV - greatest[..., None] - log_sum[..., None]
    p_WCV = jnp.exp(log_WCV)
    local, ours = _local_targets(targets, z_WCV.shape[-1], axis)
    hit = (jnp.arange(z_WCV.shape[-1])[None] == local[:, None]) & ours[:, None]

    def per_view(*names: str) -> Array:
        return jnp.stack([getattr(given, name) for name in names])[..., None]

    if not isinstance(statistics, PairStatistics):
        nll, entropy = per_view("nll_p"), per_view("entropy_p")
        centred = log_WCV + statistics.entropy_p[None, :, None]
        return nll * (p_WCV - hit[None].astype(p_WCV.dtype)) - entropy * p_WCV * centred
    nll, entropy = per_view("nll_p", "nll_q"), per_view("entropy_p", "entropy_q")
    toward, away = per_view("kl_pq", "kl_qp"), per_view("kl_qp", "kl_pq")
    centred = log_WCV + jnp.stack([statistics.entropy_p, statistics.entropy_q])[..., None]
    ratio = log_WCV - log_WCV[::-1]
    apart = ratio - jnp.stack([statistics.kl_pq, statistics.kl_qp])[..., None]
    own = (p_WCV - hit[None].astype(p_WCV.dtype)) * nll
    return own + p_WCV * (toward * apart - entropy * centred) + away * (p_WCV - p_WCV[::-1])


def _local_targets(targets: Array, vocabulary: int, axis: str | None) -> tuple[Array, Array]:
    """(index into this shard's vocabulary, True if the target is in it)."""
    local = targets - (jax.lax.axis_index(axis) * vocabulary if axis else 0)
    return jnp.clip(local, 0, vocabulary - 1), (local >= 0) & (local < vocabulary)


def _over(reduce: Callable, value: Array, axis: Any) -> Array:
    return reduce(value, axis) if axis else value


def _product(a: Array, b: Array, contract_a: int, contract_b: int) -> Array:
    dimensions = (((contract_a,), (contract_b,)), ((), ()))
    return jax.lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)


@dataclasses.dataclass(frozen=True)
class _Chunks:
    """N tokens as `count` equal chunks, the last one padded with zeros."""

    tokens: int
    count: int

    @classmethod
    def of(cls, tokens: int, views: int, vocabulary: int) -> _Chunks:
        most = max(CHUNK_TOKENS, CHUNK_BYTES // (4 * views * vocabulary))
        return cls(tokens, max(1, -(-tokens // most)))

    def cut(self, array: Array) -> Array:
        size = -(-self.tokens // self.count)
        missing = self.count * size - self.tokens
        padded = jnp.pad(array, ((0, missing), *((0, 0),) * (array.ndim - 1)))
        return padded.reshape(self.count, size, *array.shape[1:])

    def join(self, array: Array) -> Array:
        return array.reshape(-1, *array.shape[2:])[: self.tokens]

    def views(self, views: Views) -> Array:
        """[chunks, views, tokens of a chunk, D]."""
        return jnp.stack([self.cut(view.reshape(-1, view.shape[-1])) for view in views], axis=1)
