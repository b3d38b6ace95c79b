"""A checkpoint's model without its weights, and a model's parameters as one flat dictionary.

A model's parameters are a dictionary from dotted path ("language.layers.query.kernel") to array. Sharding rules, the
trainable filter, conversion and checkpoints all speak of these paths.
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
from jaxguard.files import read_object
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
    """The adapters that the model carries beside what a checkpoint holds."""

    @property
    def vocabulary(self) -> int:
        """Tokens that the output head tells apart."""
        head = jax.eval_shape(lambda parameters: merge(self.graph, parameters).language.unembedding, self.shapes)
        return head.vocabulary

    def initial(self, seed: int) -> Parameters:
        """Fresh weights; to be jitted with output shardings."""
        model = _build(self.family, self.config, self.lora, dtype=jnp.float32, remat="none", rngs=nnx.Rngs(seed))
        return {_dotted(path): leaf[...] for path, leaf in nnx.to_flat_state(nnx.split(model)[1])}


def architecture(folder: Path, *, dtype: str, remat: Remat, lora: LoraConfig | None = None) -> Architecture:
    """Read a checkpoint folder's configuration.

    Args:
        folder: holds config.json and, for other pixel statistics than CLIP's, preprocessor_config.json.
        dtype: compute type of the activations.
        remat: what of the layers the backward pass computes again.
        lora: adapters to add.

    Raises:
        UserError: unreadable files, another model type than ours, or a shape that does not work.
    """
    config = read_object(folder / "config.json")
    family = open_family(config, folder)
    try:
        resolved = family.read_config(config, folder)
    except (TypeError, ValueError, AttributeError) as error:
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
    """The module with these parameters, which together must be all of them."""
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
