"""Low-rank adapters (arXiv 2106.09685): added to chosen linear layers, given dropout, merged into the weights."""

from __future__ import annotations

import re
from collections.abc import Mapping

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array

from jaxguard.config import LoraConfig
from jaxguard.models.layers import Linear, Lora

A, B = ".lora.a", ".lora.b"
"""Suffixes of an adapter's parameter paths."""


class LoraError(ValueError):
    """Targets that cannot be adapted."""


def adapt(model: nnx.Module, config: LoraConfig, rngs: nnx.Rngs) -> None:
    """Add an adapter to every linear layer whose path ("language.layers.query") the targets match.

    Raises:
        LoraError: they match no layer, or the patch embedding or an output head, whose kernels are read directly.
    """
    found = False
    for path, module in nnx.iter_modules(model):
        name = ".".join(map(str, path))
        if isinstance(module, Linear) and re.search(config.targets, name):
            if name.endswith((".patch", "head")):
                raise LoraError(f"model.lora.targets {config.targets!r} matches {name}, which cannot carry an adapter")
            found = True
            module.lora = Lora(
                module.kernel.shape, rank=config.rank, alpha=config.alpha, dropout=config.dropout, rngs=rngs
            )
    if not found:
        raise LoraError(f"model.lora.targets {config.targets!r} matches no linear layer")


def drop(model: nnx.Module, key: Array) -> None:
    """Turn on the adapters' dropout for one step, drawn from `key`."""
    for number, (_, module) in enumerate(nnx.iter_modules(model)):
        if isinstance(module, Lora):
            module.key = nnx.Variable(jax.random.split(jax.random.fold_in(key, number), module.a.shape[:-2]))


def merged(parameters: Mapping[str, np.ndarray], config: LoraConfig) -> dict[str, np.ndarray]:
    """Merge the adapters into the weights: return parameters of an equivalent model without adapters."""
    result = {path: value for path, value in parameters.items() if not path.endswith((A, B))}
    for path, a in parameters.items():
        if path.endswith(A):
            kernel = path.removesuffix(A) + ".kernel"
            product = np.asarray(a, np.float32) @ np.asarray(parameters[path.removesuffix(A) + B], np.float32)
            result[kernel] = np.asarray(result[kernel], np.float32) + product * np.float32(config.alpha / config.rank)
    return result
