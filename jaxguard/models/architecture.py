"""A checkpoint's model without its weights, and a model's parameters as one flat dictionary.

A model's parameters are a dictionary from dotted path ("language.layers.query.kernel") to array. Sharding rules, the
trainable filter, conversion and checkpoints all use these paths.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from jaxguard.config import LoraConfig, Remat
from jaxguard.errors import UserError
from jaxguard.models.checkpoint_files import read_config
from jaxguard.models.convert import Table
from jaxguard.models.families.registry import open_family
from jaxguard.models.family import Family
from jaxguard.models.lora import LoraError, adapt
from jaxguard.models.vision_language import VisionLanguageModel

Parameters = dict[str, jax.Array]
Leaf = TypeVar("Leaf", jax.Array, jax.ShapeDtypeStruct)
"""An array, or its description where shapes alone are worked with."""


@dataclass(frozen=True)
class Architecture:
    """A model without its weights: how to build it, and the abstract arrays of its parameters."""

    family: Family
    config: Any
    table: Table
    graph: nnx.GraphDef
    shapes: dict[str, jax.ShapeDtypeStruct]
    lora: LoraConfig | None = None
    """Adapters added to the model; a checkpoint does not hold them."""

    @property
    def vocabulary(self) -> int:
        """Number of tokens of the output head."""
        head = jax.eval_shape(lambda parameters: merge(self.graph, parameters).language.unembedding, self.shapes)
        return head.vocabulary

    def initial(self, seed: int) -> Parameters:
        """Draw fresh weights; jit it with output shardings."""
        model = _build(self.family, self.config, self.lora, dtype=jnp.float32, remat="none", rngs=nnx.Rngs(seed))
        return {_dotted(path): leaf[...] for path, leaf in nnx.to_flat_state(nnx.split(model)[1])}


def architecture(folder: Path, *, dtype: str, remat: Remat, lora: LoraConfig | None = None) -> Architecture:
    """Read a checkpoint folder's configuration.

    Args:
        folder: holds config.json and, if pixel statistics differ from CLIP's, preprocessor_config.json.
        dtype: compute type of the activations.
        remat: what the backward pass recomputes.
        lora: adapters to add.

    Raises:
        UserError: unreadable files, an unsupported model type, or shapes that do not fit together.
    """
    config = read_config(folder)
    family = open_family(config, folder)
    try:
        resolved = family.read_config(config, folder)
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(f"{folder / 'config.json'}: {error}") from error

    def build() -> VisionLanguageModel:
        return _build(family, resolved, lora, dtype=jnp.dtype(dtype), remat=remat, rngs=nnx.Rngs(0))

    try:
        graph, state = nnx.split(nnx.eval_shape(build))
    except LoraError as error:
        raise UserError(str(error)) from error
    shapes = {_dotted(path): jax.ShapeDtypeStruct(leaf.shape, jnp.float32) for path, leaf in nnx.to_flat_state(state)}
    return Architecture(family, resolved, family.table(resolved), graph, shapes, lora)


def merge(graph: nnx.GraphDef, *parameters: Parameters) -> Any:
    """Return the module with these parameters, which together must be all of its parameters."""
    flat = [(tuple(path.split(".")), nnx.Param(value)) for part in parameters for path, value in sorted(part.items())]
    return nnx.merge(graph, nnx.from_flat_state(flat))


def _build(
    family: Family, config: Any, lora: LoraConfig | None, *, rngs: nnx.Rngs, **options: Any
) -> VisionLanguageModel:
    model = family.module(config, rngs=rngs, **options)
    if lora is not None:
        adapt(model, lora, rngs)
    return model


def _dotted(path: tuple) -> str:
    return ".".join(map(str, path))
