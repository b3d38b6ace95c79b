"""Digests of parameters and of inputs: equal values have equal ones, on any mesh."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

from jaxguard.data.rows import Row
from jaxguard.evaluate.predictions import Prediction
from jaxguard.models.architecture import Parameters

LENGTH = 8
"""Hexadecimal digits of a digest."""


def parameters_digest(parameters: Parameters) -> str:
    """Digest parameters by their bits and places.

    Computed on the devices, where they are. The sums are of whole numbers modulo 2^32, so their order, which depends
    on the mesh, does not matter.
    """
    sums = jax.jit(lambda values: {path: _sums(value) for path, value in values.items()})(parameters)
    found = {path: np.asarray(value).tolist() for path, value in sums.items()}
    return _digest(json.dumps([(path, str(parameters[path].dtype), found[path]) for path in sorted(found)]))


def questions_digest(predictions: Sequence[Prediction]) -> str:
    """Digest which rows were asked: names, prompts and true answers."""
    return _digest(json.dumps([(p.id, p.key, p.prompt, p.references) for p in predictions]))


def input_digest(row: Row) -> str:
    """Digest the images and prompts of a row."""
    return _digest(json.dumps(row.prompts), *(np.ascontiguousarray(image).tobytes() for image in row.images))


def _sums(values: Array) -> UInt32[Array, 2]:
    """Sum hashes of (bits, place) twice, with different multipliers."""
    bits: Any = jax.lax.bitcast_convert_type(values, {2: jnp.uint16, 4: jnp.uint32}[values.dtype.itemsize])
    bits = bits.astype(jnp.uint32).reshape(-1)
    place = jax.lax.iota(jnp.uint32, len(bits))

    def mixed(multiplier: int) -> Array:
        hashed = (bits + jnp.uint32(1)) * jnp.uint32(multiplier)
        hashed ^= hashed >> jnp.uint32(15)
        return jnp.sum(hashed * (jnp.uint32(2) * place + jnp.uint32(multiplier)), dtype=jnp.uint32)

    return jnp.stack([mixed(0x9E3779B1), mixed(0x85EBCA6B)])


def _digest(*parts: str | bytes) -> str:
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(part.encode() if isinstance(part, str) else part)
    return hashed.hexdigest()[:LENGTH]
