"""The only module that builds a PartitionSpec: the mesh, and one table of rules from parameter path to mesh axes."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Shaped

from jaxguard.batch import Batch
from jaxguard.config import MeshConfig
from jaxguard.errors import UserError
from jaxguard.models import placement
from jaxguard.models.family import AxisRules
from jaxguard.models.head import Head
from jaxguard.objective.fused import Split

Tree = TypeVar("Tree")

log = logging.getLogger(__name__)

RULES: AxisRules = (
    (r"\.(query|key|value|qkv|gate|up|first)\.kernel$", ("fsdp", "tensor")),
    (r"\.(query|key|value|qkv|gate|up|first)\.bias$", ("tensor",)),
    (r"\.(out|down|second)\.kernel$", ("tensor", "fsdp")),
    (r"\.(query|key|value|qkv|gate|up|first)\.lora\.a$", ("fsdp", None)),
    (r"\.(query|key|value|qkv|gate|up|first)\.lora\.b$", (None, "tensor")),
    (r"\.(out|down|second)\.lora\.a$", ("tensor", None)),
    (r"\.(out|down|second)\.lora\.b$", (None, "fsdp")),
    (r"\.embedding\.table$", ("tensor", "fsdp")),
    (r"\.head\.kernel$", ("fsdp", "tensor")),
    (r"\.patch\.kernel$", (None, "fsdp")),
    (r"^vision\.(class_token|position|registers)$", ()),
    (r"\.(scale[12]?|bias)$", ()),
)
"""One table for all families, which name alike what is alike; what only one has is in its `Family.axes`.

A family's own rules go before these, and the first match wins. Axes are those of one layer; a stack's leading layer
axis is never split. What no rule names is replicated, and that is logged.
"""
ROWS = ("data", "fsdp")
"""The axes over which the rows of a batch are split."""


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A `data` x `fsdp` x `tensor` mesh over all devices, or over those given (a slice that is only described).

    Raises:
        UserError: the sizes do not multiply to the number of devices.
    """
    sizes = [config.data, config.fsdp, config.tensor]
    count = jax.device_count() if devices is None else len(devices)
    if sizes.count(-1) == 1:
        known = -int(np.prod(sizes))
        sizes[sizes.index(-1)] = count // known if known and count % known == 0 else 0
    if min(sizes) < 1 or int(np.prod(sizes)) != count:
        raise UserError(
            f"mesh {config.data} x {config.fsdp} x {config.tensor} (data x fsdp x tensor) does not fit "
            f"{count} device(s); the sizes must multiply to {count}, one of them may be -1"
        )
    return jax.make_mesh(tuple(sizes), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3, devices=devices)


def parameter_shardings(
    shapes: Mapping[str, jax.ShapeDtypeStruct | jax.Array], mesh: Mesh, own: AxisRules = ()
) -> dict[str, NamedSharding]:
    """Placement by path, by a family's own rules and `RULES`.

    An axis that does not divide its dimension is dropped, and that is logged, once.
    """
    rules = own + RULES
    return {path: NamedSharding(mesh, _spec(path, struct.shape, mesh, rules)) for path, struct in shapes.items()}


def state_shardings(state: object, parameters: Mapping[str, NamedSharding], mesh: Mesh) -> object:
    """Place a train state: whatever is keyed by a parameter's path (moments, copies) goes where the parameter goes."""

    def place(keys: tuple, leaf: jax.Array | jax.ShapeDtypeStruct) -> NamedSharding:
        path = next((key.key for key in reversed(keys) if isinstance(key, jax.tree_util.DictKey)), None)
        return parameters[path] if path is not None and path in parameters and leaf.ndim else replicated(mesh)

    return jax.tree_util.tree_map_with_path(place, state)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows are split over `ROWS`."""
    return NamedSharding(mesh, PartitionSpec(ROWS))


def rows_on(mesh: Mesh) -> AbstractContextManager[None]:
    """Models that are traced inside hold their hidden states to the devices of their rows."""
    heads = NamedSharding(mesh, PartitionSpec(ROWS, None, "tensor"))
    return placement.on(placement.Placement(batch_sharding(mesh), heads))


def logits_on(logits: jax.Array, mesh: Mesh) -> jax.Array:
    """Logits held to the devices of their rows, their vocabulary split as the head's weights are."""
    if mesh.size == 1:
        return logits
    rest = (None,) * (logits.ndim - 2)
    place = NamedSharding(mesh, PartitionSpec(ROWS, *rest, PartitionSpec.UNCONSTRAINED))
    return jax.lax.with_sharding_constraint(logits, place)


def head_split(mesh: Mesh, head: Head) -> Split:
    """Split the fused statistics: rows as in a batch, the vocabulary over `tensor` if it divides."""
    ways = mesh.shape["tensor"]
    axis = "tensor" if ways > 1 and head.vocabulary % ways == 0 else None
    if ways > 1 and axis is None:
        _warn(f"vocabulary: {head.vocabulary} does not divide over tensor={ways}; every device computes all logits")
    weight = PartitionSpec(None, axis) if head.vocabulary_axis else PartitionSpec(axis, None)
    specs = [weight] if head.bias is None else [weight, PartitionSpec(axis)]
    return Split(mesh, PartitionSpec(ROWS), jax.tree.unflatten(jax.tree.structure(head), specs), ROWS, axis)


def local_places(size: int, mesh: Mesh) -> list[int]:
    """List the rows of a global batch of `size` that are on devices of this process, in rising order.

    Where the `tensor` axis reaches over processes, several of them hold the same rows.
    """
    slices = batch_sharding(mesh).addressable_devices_indices_map((size,)).values()
    return sorted({row for index in slices if index for row in range(*index[0].indices(size))})


def place_batch(batch: Batch, mesh: Mesh) -> Batch:
    """The rows of `local_places`, in that order, as this process's part of the global batch on the mesh."""
    sharding, ways = batch_sharding(mesh), mesh.shape["data"] * mesh.shape["fsdp"]
    size = len(batch.tokens) * ways // len(local_places(ways, mesh))
    start = {place: row for row, place in enumerate(local_places(size, mesh))}

    def place(leaf: np.ndarray) -> jax.Array:
        def piece(index: tuple[slice, ...] | None) -> np.ndarray:
            first, last, _ = (index or (slice(None),))[0].indices(size)
            return leaf[start[first] : start[first] + last - first]

        return jax.make_array_from_callback((size, *leaf.shape[1:]), sharding, piece)

    return jax.tree.map(place, batch)


def local_rows(rows: Shaped[jax.Array, "B ..."]) -> Shaped[np.ndarray, "b ..."]:
    """The rows of `local_places`, in that order, of an array placed by `batch_sharding`."""
    pieces = {shard.index[0].start or 0: shard.data for shard in rows.addressable_shards}
    return np.concatenate([np.asarray(pieces[start]) for start in sorted(pieces)])


def micro_batches(tree: Tree, count: int, mesh: Mesh) -> Tree:
    """Arrays of the batch's rows cut into `count` micro-batches, along a new first axis; no row leaves its device."""
    ways, place = _ways(mesh), NamedSharding(mesh, PartitionSpec(None, ROWS))

    def cut(leaf: jax.Array) -> jax.Array:
        parts = leaf.reshape(ways, count, -1, *leaf.shape[1:]).swapaxes(0, 1)
        return jax.lax.with_sharding_constraint(parts.reshape(count, -1, *leaf.shape[1:]), place)

    return jax.tree.map(cut, tree)


def zeros_like(parameters: Mapping[str, jax.Array], places: Mapping[str, NamedSharding]) -> dict[str, jax.Array]:
    """Make zeros that are placed like these parameters."""
    zeros = {path: jnp.zeros(value.shape, value.dtype) for path, value in parameters.items()}
    return {path: jax.lax.with_sharding_constraint(value, places[path]) for path, value in zeros.items()}


def check_batch_size(name: str, size: int, mesh: Mesh) -> None:
    """Raises UserError where the rows do not divide over the mesh."""
    ways = _ways(mesh)
    if size % ways:
        raise UserError(f"{name} is {size}: must be a multiple of the {ways} data-parallel devices (data x fsdp)")


def _ways(mesh: Mesh) -> int:
    return mesh.shape["data"] * mesh.shape["fsdp"]


def _spec(path: str, shape: tuple[int, ...], mesh: Mesh, rules: AxisRules) -> PartitionSpec:
    axes = next((axes for pattern, axes in rules if re.search(pattern, path)), None)
    if axes is None:
        _warn(f"{path}: no sharding rule names it; replicated")
    if not axes:
        return PartitionSpec()
    lead: tuple[str | None, ...] = (None,) * (len(shape) - len(axes))
    kept: list[str | None] = []
    for axis, size in zip(lead + axes, shape, strict=True):
        fits = axis is None or size % mesh.shape[axis] == 0
        if not fits:
            _warn(f"{path}: {size} does not divide over {axis}={mesh.shape[axis]}; replicated there")
        kept.append(axis if fits else None)
    return PartitionSpec(*kept)


@functools.cache
def _warn(message: str) -> None:
    log.warning(message)
